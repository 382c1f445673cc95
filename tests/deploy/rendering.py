"""What `kubectl apply -k` would install: the base, an overlay of it with components, or the example."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import BASE, ROOT, Document

COMPONENTS = BASE.parent / "components"
EVERY_COMPONENT = tuple(sorted(path.name for path in COMPONENTS.iterdir()))
OLD = "kubernetes-1.28"
"""The component that only that version needs."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "base": (),
    **{name: (name,) for name in EVERY_COMPONENT},
    "everything": tuple(name for name in EVERY_COMPONENT if name != OLD),
    f"everything on {OLD}": EVERY_COMPONENT,
}
"""Components by what to call them together."""

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")


@cache
def rendered(directory: Path) -> list[Document]:
    """A directory with a kustomization."""
    command = ["kubectl", "kustomize", str(directory)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(output))


@cache
def rendered_with(*components: str, more: str = "") -> list[Document]:
    """An overlay that names the base and these components, with `more` of a kustomization beside them."""
    document = {"resources": ["../base"], "components": [f"../components/{name}" for name in components]}
    document |= yaml.safe_load(more) or {}
    with tempfile.TemporaryDirectory() as directory:
        for part in (BASE, COMPONENTS):
            shutil.copytree(part, Path(directory, part.name))
        overlay = Path(directory, "overlay")
        overlay.mkdir()
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return rendered(overlay)


EXAMPLE = ROOT / "deploy" / "example"
