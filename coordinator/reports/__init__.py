"""Reports of pooled rounds, and the releases from which anybody pools them again."""
