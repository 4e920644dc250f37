"""How the site stands, as a page on loopback, in a process without keys or data."""
