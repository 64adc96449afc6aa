"""The web page: one template with its own CSS, JavaScript and sample pictures, nothing from another host.

The page only calls the public API; whatever it shows, any other client of `/v1/predict` can have too.
"""

from gateway.page.blueprint import page

__all__ = ["page"]
