"""What nodes run, by their own Python (3.8 or newer) alone; the controller imports it as well."""
