"""The site agent: verifies, scores, summarises and releases inside the hospital."""
