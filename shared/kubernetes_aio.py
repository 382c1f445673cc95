"""The asynchronous half of the `kubernetes` package without the synchronous one, which would need 7 MB more.

`import kubernetes.aio` first runs `kubernetes/__init__.py`, which brings requests, oauthlib, websocket-client
and 200 modules that nobody here calls. So the package is put in place without that, as a namespace is.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec

if "kubernetes" not in sys.modules and (_spec := find_spec("kubernetes")) is not None:
    sys.modules["kubernetes"] = module_from_spec(_spec)

from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject

__all__ = ("ApiClient", "Configuration", "RESTClientObject", "kube_config")
