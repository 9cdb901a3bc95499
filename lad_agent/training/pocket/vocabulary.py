"""What the pocket model talks about: SynLOCO's products, nouns, attributes and their values."""

from lad_agent.rationale import NOTHING
from lad_agent.training.synloco import PRODUCTS, attributes, classes, rules

PRODUCT_NAMES: tuple[str, ...] = (*PRODUCTS, NOTHING)

NOUNS: tuple[str, ...] = tuple(
    dict.fromkeys(noun for product in PRODUCTS for noun in classes(product))
)
"""All plural nouns, each once; the damage noun is shared by all products."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    name: values for product in PRODUCTS for name, values in attributes(product).items()
}

TEXTS: tuple[str, ...] = (
    *(name.replace("_", " ") for name in PRODUCT_NAMES),
    *NOUNS,
    *(f"{name} {' '.join(values)}" for name, values in ATTRIBUTES.items()),
    *(text for product in PRODUCTS for _, text in rules(product)),
    "washer nut screw compartment tangerine nectarine fruit label connector cable place",
    "exactly is fits for equal at of ok bad product List Query Rules Reference Product none",
    "there is nothing to check",
)
