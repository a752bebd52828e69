"""Parts of ``stress/differential.py``: what programs are made of, how one is run, and what explains a difference."""
