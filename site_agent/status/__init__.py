"""Where every round of a site stands, for its people."""
