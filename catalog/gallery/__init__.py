"""The catalog in a browser: pages by Jinja, pictures sized down, and who may see them."""
