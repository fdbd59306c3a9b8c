# ruff: noqa: T201
"""The demo model's tokenizer and processor: a small vocabulary under KOSMOS-2's own tags and location tokens.

The ids 0 to 3 are `<s> <pad> </s> <unk>`, as Kosmos2TextConfig expects. Kosmos2Processor adds the tags and the 1,024
location tokens, and uses the ids 4 to 67 as places of the image. Words outside the vocabulary are spelled.
"""

import argparse
import json
import string
from pathlib import Path

from drawing import COLOURS, SHAPES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, Kosmos2Processor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
# The order is part of the checkpoint: each place is a row of its embedding.
WORDS = """
red green blue yellow orange purple white black circle square triangle diamond star cross heart ring
a an the An The A image picture photo of with and in on is are there Describe this detail: detail
Question: Answer: Question Answer What Where How many Which color colour shape shapes background
it It This one two three four no zero none left right top bottom middle center object objects thing
circles squares triangles diamonds stars crosses hearts rings gray plain gradient noisy small large
dog cat person man woman car snowman fire tree house
"""


def vocabulary() -> list[tuple[str, float]]:
    """Pieces with their Unigram scores: words before letters."""
    words = WORDS.split()
    assert {*COLOURS, *SHAPES} <= set(words)
    marks = ",.:?!'"
    letters = (c for c in string.ascii_letters + string.digits + string.punctuation if c not in marks)
    return [
        *((piece, 0.0) for piece in SPECIAL),
        ("▁", -6.0),
        *((mark, -4.0) for mark in marks),
        *(("▁" + word, -3.0 - 0.001 * place) for place, word in enumerate(words)),
        *((letter, -12.0) for letter in letters),
    ]


def build_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(vocabulary(), unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    space = {"replacement": "▁", "prepend_scheme": "always"}
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**space)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.Metaspace(**space)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in SPECIAL])
    return tokenizer


def build_processor(folder: Path) -> Kosmos2Processor:
    """The processor, saved in the folder: images squashed to 224×224 without a crop."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 2048, **names}
    settings |= {"cls_token": "<s>", "sep_token": "</s>", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    images = CLIPImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False)
    processor = Kosmos2Processor(images, AutoTokenizer.from_pretrained(folder))
    save_processor(processor, folder)
    return processor


def save_processor(processor: Kosmos2Processor, folder: Path) -> None:
    """Without the traces that transformers leaves of where a tokenizer was loaded from."""
    processor.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    for trace in ("is_local", "local_files_only", "padding_side"):
        settings.pop(trace, None)
    settings["tokenizer_class"] = "XLMRobertaTokenizer"  # not the TokenizersBackend that AutoProcessor made of it
    path.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    folder = parser.parse_args().out
    print(f"{len(build_processor(folder).tokenizer)} tokens in {folder}")
