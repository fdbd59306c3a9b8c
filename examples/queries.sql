-- Questions to an archive, for `kosmograph sql`: the same on SQLite and PostgreSQL. Each is one statement; put the
-- words of your own archive in place of dog, person, before and after.

-- What is in the archive, and how sure was the model of it?
SELECT head, COUNT(DISTINCT image_id) AS images, COUNT(*) AS boxes, AVG(score) AS mean_score
FROM groundings
WHERE valid
GROUP BY head
ORDER BY images DESC, head
LIMIT 20;

-- In which pictures is a dog left of a person?
SELECT DISTINCT uri
FROM relations
WHERE head = 'dog' AND other_head = 'person' AND left_of
ORDER BY uri;

-- What appears together more often than chance would have it? (pmi in bits: 1 is twice as often)
SELECT phrase_norm, other_norm, images, phrase_images, other_images, pmi
FROM cooccurrences
WHERE phrase_norm < other_norm AND images >= 5
ORDER BY pmi DESC, images DESC
LIMIT 20;

-- Which captions name a dog, but box none?
SELECT c.uri, c.caption
FROM captions c
WHERE ' ' || LOWER(c.caption) || ' ' LIKE '% dog%' AND NOT EXISTS (
    SELECT 1 FROM groundings g
    WHERE g.job = c.job AND g.image_id = c.image_id AND g.annotation_id = c.annotation_id AND g.head = 'dog' AND g.valid)
ORDER BY c.uri;

-- Which groundings should a person look at first, as the model was least certain of them?
SELECT score, phrase, uri
FROM groundings
WHERE score IS NOT NULL AND valid
ORDER BY score, uri
LIMIT 20;

-- What failed, and in which folders?
SELECT RTRIM(uri, REPLACE(uri, '/', '')) AS folder, code, COUNT(*) AS failures, MIN(uri) AS example
FROM failures
GROUP BY RTRIM(uri, REPLACE(uri, '/', '')), code
ORDER BY failures DESC, folder, code;

-- Which pictures are there more than once, byte for byte?
SELECT sha256, COUNT(DISTINCT uri) AS copies, MIN(uri) AS one, MAX(uri) AS another
FROM captions
GROUP BY sha256
HAVING COUNT(DISTINCT uri) > 1
ORDER BY copies DESC, one;

-- What does another model or prompt say of the same picture? (two jobs by name)
SELECT a.uri, a.caption AS before_it_was, b.caption AS now_it_is
FROM captions a
JOIN captions b ON b.image_id = a.image_id
WHERE a.job = 'before' AND b.job = 'after' AND a.caption <> b.caption
ORDER BY a.uri;

-- How much of the picture does a thing fill on average? (by the largest of its boxes)
SELECT phrase_norm, COUNT(*) AS pictures, AVG(largest) AS mean_share
FROM (SELECT phrase_norm, job, image_id, annotation_id, MAX(area) AS largest
      FROM groundings
      WHERE valid
      GROUP BY phrase_norm, job, image_id, annotation_id) AS each_picture
GROUP BY phrase_norm
ORDER BY mean_share DESC, phrase_norm
LIMIT 20;

-- How many captions were made in each hour? (UTC; on PostgreSQL the session's time zone)
SELECT job, SUBSTR(CAST(created_at AS TEXT), 1, 13) AS hour, COUNT(*) AS captions, AVG(tokens) AS mean_tokens
FROM captions
WHERE NOT reused
GROUP BY job, SUBSTR(CAST(created_at AS TEXT), 1, 13)
ORDER BY hour, job;
