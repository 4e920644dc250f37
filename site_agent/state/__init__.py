"""The site's database: rounds, exam records and held replies."""
