"""kubeconfig files that we write and that others wrote."""

import ssl
from pathlib import Path

import pytest
import yaml

from deploy.sandbox.kubeconfigs import Access, read_kubeconfig, write_kubeconfig
from shared.certificates import make_ca, make_leaf

CA = make_ca("kubernetes")
ADMIN = make_leaf(CA, common_name="admin", is_client=True)
URL = "https://127.0.0.1:6443"
BY_CERTIFICATE = Access(
    url=URL, ca_pem=CA.certificate_pem, certificate_pem=ADMIN.certificate_pem, key_pem=ADMIN.key_pem
)
BY_TOKEN = Access(url=URL, ca_pem=CA.certificate_pem, token="secret", namespace="airflow")


@pytest.mark.parametrize("access", [BY_CERTIFICATE, BY_TOKEN], ids=["certificate", "token"])
def test_what_was_written_is_read(access: Access, tmp_path: Path) -> None:
    assert read_kubeconfig(write_kubeconfig(tmp_path / "config", access)) == access


def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    """It holds a key, or a token."""
    assert write_kubeconfig(tmp_path / "config", BY_TOKEN).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("directory", ["", "pki/"])
def test_files_are_looked_for_beside_the_kubeconfig(directory: str, tmp_path: Path) -> None:
    """As minikube and kubeadm write them, and as kubectl reads them."""
    (tmp_path / "pki").mkdir(exist_ok=True)
    files = {"ca.crt": CA.certificate_pem, "admin.crt": ADMIN.certificate_pem, "admin.key": ADMIN.key_pem}
    for name, content in files.items():
        (tmp_path / directory / name).write_bytes(content)
    config = tmp_path / "config"
    config.write_text(
        yaml.safe_dump(
            {
                "current-context": "two",
                "contexts": [
                    {"name": "one", "context": {"cluster": "other", "user": "other"}},
                    {"name": "two", "context": {"cluster": "lab", "user": "admin"}},
                ],
                "clusters": [
                    {"name": "lab", "cluster": {"server": URL, "certificate-authority": f"{directory}ca.crt"}}
                ],
                "users": [
                    {
                        "name": "admin",
                        "user": {
                            "client-certificate": f"{directory}admin.crt",
                            "client-key": f"{directory}admin.key",
                        },
                    }
                ],
            }
        )
    )
    assert read_kubeconfig(config) == BY_CERTIFICATE


def test_a_cluster_whose_authority_nobody_names_is_not_trusted(tmp_path: Path) -> None:
    document = yaml.safe_load(write_kubeconfig(tmp_path / "config", BY_TOKEN).read_text())
    del document["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match=f"names no certificate authority for {URL}"):
        read_kubeconfig(tmp_path / "config")


@pytest.mark.parametrize("access", [BY_CERTIFICATE, BY_TOKEN], ids=["certificate", "token"])
def test_a_client_checks_whom_it_talks_to(access: Access) -> None:
    context = access.tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
