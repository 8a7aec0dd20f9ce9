"""The store on nodes: trees by their content, delivered once to all of them."""
