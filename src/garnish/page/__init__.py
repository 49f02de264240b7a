"""A static page that runs an exported folder in a browser: modules that a server can serve as well."""
