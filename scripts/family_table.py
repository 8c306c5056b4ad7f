"""Write the family table of the README from the counted costs.

    python scripts/family_table.py

Replaces the text between the two `family` comments. tests/test_readme.py fails when the README has
another table.
"""

from pathlib import Path

from keras_inception import VARIANTS, network_cost

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- family: made by scripts/family_table.py -->\n", "<!-- /family -->"


def family_table() -> str:
    """Return the family as a Markdown table: name, input, classes, parameters, multiply-adds."""
    lines = [
        "| name | input | classes | parameters | multiply-adds |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, spec in VARIANTS.items():
        total = network_cost(spec).total
        size = " x ".join(str(number) for number in spec.input_shape)
        counts = f"{total.params:,} | {total.macs:,}"
        lines.append(f"| `{name}` | {size} | {spec.classes} | {counts} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table to the README."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + family_table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
