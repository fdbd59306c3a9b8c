#!/bin/sh
# Run once by the postgres image, when it has made an empty database; compose.yaml uses it as well. Kosmograph gets a
# role of its own, since it refuses to answer SQL as a superuser; the superuser loses its password, and with it the
# network: `psql -U postgres` in the container is what is left.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$POSTGRES_PASSWORD" -U postgres -d postgres <<'END'
CREATE ROLE kosmograph LOGIN PASSWORD :'password';
CREATE DATABASE kosmograph OWNER kosmograph;
ALTER ROLE postgres PASSWORD NULL;
END
