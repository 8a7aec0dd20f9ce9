"""A page that another machine wrote, as one that can do nothing: no script, no form, no other address."""

from __future__ import annotations

from html import escape

# HTML 4.8.5: with an empty `sandbox` a frame runs no script; from `srcdoc` it inherits the policy of the page
# around it (CSP 3, 7.8), so that it loads nothing either.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = "html, body { margin: 0; height: 100%; } iframe { border: 0; width: 100%; height: 99vh; }"


def harmless(page: str, *, title: str) -> str:
    """A page around another machine's page, which is shown and cannot act."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><iframe sandbox="" title="{escape(title)}" srcdoc="{escape(page)}"></iframe></body></html>\n'
    )
