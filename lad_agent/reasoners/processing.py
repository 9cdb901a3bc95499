"""Pictures and text in, tensors out: the processor of any Qwen2.5-VL folder, images only.

The stock `Qwen2_5_VLProcessor` insists on a video processor, and that on torchvision. Inspection
needs neither, so the class here leaves the video part out. It bears the stock name, so that a
folder saved with it says `"processor_class": "Qwen2_5_VLProcessor"` and loads everywhere. It is
used where torchvision is installed too: then every machine computes the same pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import ProcessorMixin, Qwen2VLImageProcessorPil
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor as _Stock

from lad_agent.errors import ModelError
from lad_agent.images import prepare
from lad_agent.recipe import Region

IMAGE_TOKEN = "<|image_pad|>"
VIDEO_TOKEN = "<|video_pad|>"


class Qwen2_5_VLProcessor(_Stock):  # type: ignore[misc]  # noqa: N801 - the stock name, see above
    """Image-only processor; the parts it loads and saves are read off this signature."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token = IMAGE_TOKEN
        self.video_token = VIDEO_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.video_token_id = tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def load_processor(folder: Path) -> Any:
    """The processor of the model in `folder`, padding on the left as generation needs it.

    Raises:
        ModelError: the folder's tokenizer, processor or chat template cannot be used.
    """
    try:
        processor = Qwen2_5_VLProcessor.from_pretrained(folder, local_files_only=True)
        # Where torchvision is installed, transformers would have chosen its backend.
        processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(
            folder, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: tokenizer or processor cannot be loaded ({reason})") from error
    if processor.image_token_id in (None, processor.tokenizer.unk_token_id):
        raise ModelError(f"{folder}: the tokenizer has no {IMAGE_TOKEN} token; not a Qwen2.5-VL")
    if processor.chat_template is None:
        raise ModelError(f"{folder}: chat_template.jinja is missing")
    processor.tokenizer.padding_side = "left"
    return processor


def new_processor(tokenizer: Any, chat_template: str, image_size: int) -> Any:
    """A processor around a tokenizer of one's own, for square pictures of `image_size` pixels."""
    pixels = image_size * image_size
    image_processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": pixels, "longest_edge": pixels}
    )
    return Qwen2_5_VLProcessor(image_processor, tokenizer, chat_template=chat_template)


def usable_size(image_size: int, processor: Any) -> int:
    """`image_size` rounded to whole visual tokens (28 pixels in Qwen2.5-VL), one at least."""
    token = int(processor.image_processor.patch_size * processor.image_processor.merge_size)
    return max(token, round(image_size / token) * token)


def pixels(processor: Any, images: Sequence[Image.Image], image_size: int) -> Any:
    """`pixel_values` and `image_grid_thw` of pictures, each made a square of usable size."""
    size = usable_size(image_size, processor)
    squares = [prepare(image, Region(), size) for image in images]
    return processor.image_processor(images=squares, do_resize=False, return_tensors="pt")
