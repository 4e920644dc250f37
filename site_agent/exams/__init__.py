"""Where a site's exams come from, and how they are scored."""
