"""The exploratory page of a patch set: facts, figures, HTML."""
