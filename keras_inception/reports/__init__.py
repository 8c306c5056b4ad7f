"""Pages that a person opens after a training or an evaluation: HTML files that work offline."""
