"""The finalists of a search as HTML."""

from __future__ import annotations

import html

from tuning.verdict import Verdict


def finalists_html(found: Verdict | None) -> str:
    """The verdict and its finalists; a note if no finalist was trained."""
    if found is None:
        return "<p>No finalist was trained fully.</p>"
    rows = [
        f"<tr><td>{place}</td><td>{item.number}</td><td>{item.mean:.2%}</td>"
        f"<td>{'' if item.spread is None else f'{item.spread:.2%}'}</td>"
        f"<td>{len(item.accuracies)}</td><td>{item.trial_accuracy:.2%}</td>"
        f"<td>{'yes' if item.number in found.worse else ''}</td></tr>"
        for place, item in enumerate(found.finalists, start=1)
    ]
    return (
        f'<p>{html.escape(str(found))}</p>\n<table id="finalists">\n<tr><th></th><th>trial</th>'
        "<th>mean</th><th>standard deviation</th><th>trainings</th><th>in the trial</th>"
        "<th>beaten beyond noise</th></tr>\n" + "\n".join(rows) + "\n</table>"
    )
