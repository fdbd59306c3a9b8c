"""From SQL to people: queries and drawing."""
