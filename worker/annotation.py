"""From what the model said to an annotation: caption, entities, boxes, and how far to believe them."""

from schemas.grounding import parse
from schemas.recipes import Recipe
from schemas.results import Annotation
from worker.belief import beliefs
from worker.generation import Generation, Vocabulary
from worker.scoring import score
from worker.verification import checked


def annotation_of(
    recipe: Recipe, prompt: str, generation: Generation, vocabulary: Vocabulary, runtime: str
) -> Annotation:
    """What is stored of a generation that answers this prompt, which a recipe may have left for an item to fill."""
    grounding = parse(generation.raw_text)
    scores = score(grounding, generation, vocabulary)
    found = checked(recipe, prompt, generation, grounding)
    return Annotation(
        raw_text=generation.raw_text,
        grounding=grounding,
        scores=scores.entities,
        finish_reason=generation.finish_reason,
        tokens=len(generation.token_ids),
        mean_logprob=scores.mean_logprob,
        runtime=runtime,
        prompt=prompt if recipe.input else None,
        beliefs=beliefs(grounding, scores.entities, generation, vocabulary, found),
        absent_phrase=found.absent_phrase,
        yes_bias=found.yes_bias,
        absent_score=found.absent_score,
    )
