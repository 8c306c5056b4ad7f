"""The HTML of a search's report, for `str.format`: braces of CSS and JavaScript are doubled."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
pre {{ overflow: auto; background: #f6f6f6; padding: 1rem; }}
#shown {{ white-space: pre-line; background: #f6f6f6; padding: 1rem; min-height: 3rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
<p>{proxy}</p>
<p id="shown">Click a point to keep its network here.</p>
<h2>Finalists</h2>
{finalists}
{figures}
<h2>Leaderboard</h2>
<table id="leaderboard">
<tr><th></th><th>trial</th><th>accuracy</th><th>multiply-adds</th><th>parameters</th>
<th>epochs</th><th>seconds</th></tr>
{leaderboard}
</table>
<h2>Failed trials</h2>
{failures}
<h2>The best network</h2>
<pre id="best-spec">{spec}</pre>
<script>
for (const plot of document.querySelectorAll(".plotly-graph-div")) {{
  plot.on("plotly_click", event => {{
    const text = event.points[0].text;
    if (text) {{
      document.getElementById("shown").innerHTML = text;
    }}
  }});
}}
</script>
</body>
</html>
"""
