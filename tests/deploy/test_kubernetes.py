"""The objects of the Kubernetes base fit the API's schemas, and refer to existing objects."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from paropt_exporter import config
from paropt_exporter.cache import result_store
from paropt_exporter.config.units import parse_size
from support.deployed import parsed, refusal
from support.real_servers import program
from support.yaml_documents import load_all_yaml, load_yaml

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes/base"
KUSTOMIZATION: dict[str, Any] = load_yaml((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    each for path in KUSTOMIZATION["resources"] for each in load_all_yaml((FOLDER / path).read_text())
]
DOCUMENTATION = FOLDER.parents[2] / "docs/deploy.md"
OPERATOR = "monitoring.coreos.com/v1"
# The oldest version that cloud providers support, and the newest version of the schemas.
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


def iter_pods() -> dict[str, dict[str, Any]]:
    (deployment,), (job,) = named("Deployment").values(), named("CronJob").values()
    return {
        "Deployment": deployment["spec"]["template"]["spec"],
        "CronJob": job["spec"]["jobTemplate"]["spec"]["template"]["spec"],
    }


needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
every_pod = pytest.mark.parametrize("kind", ["Deployment", "CronJob"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("found", OBJECTS, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_every_object_fits_the_api_schemas(found: dict[str, Any], version: str) -> None:
    if found["apiVersion"] == OPERATOR:
        assert found["kind"] in ("ServiceMonitor", "PrometheusRule")  # of a CRD; other tests cover these
    else:
        kubernetes_validate.validate(found, version, strict=True)


def test_every_file_is_part_of_the_base() -> None:
    listed = {FOLDER / path for path in KUSTOMIZATION["resources"]}
    listed |= {FOLDER / file for generator in KUSTOMIZATION["configMapGenerator"] for file in generator["files"]}
    assert {path for path in FOLDER.rglob("*.y*ml") if path.name != "kustomization.yaml"} == listed


def test_the_image_is_left_to_the_overlay() -> None:
    assert "images" not in KUSTOMIZATION
    assert all(pod["containers"][0]["image"] == "paropt-exporter" for pod in iter_pods().values())


def test_commands_are_valid_and_run_configured_lanes() -> None:
    read = config.read_config(FOLDER / "paropt.yml", root=FOLDER)
    assert {parsed(pod["containers"][0]["args"]).lane for pod in iter_pods().values()} <= set(read.lanes)
    assert len(read.stages) == 3


@every_pod
def test_pods_fit_the_restricted_standard(kind: str) -> None:
    pod = iter_pods()[kind]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert "memory" in container["resources"]["limits"]


@every_pod
def test_mounted_volumes_exist(kind: str) -> None:
    pod = iter_pods()[kind]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == set(volumes)
    config_maps = {generator["name"] for generator in KUSTOMIZATION["configMapGenerator"]}
    claims = named("PersistentVolumeClaim")
    assert all(each["configMap"]["name"] in config_maps for each in volumes.values() if "configMap" in each)
    assert all(
        each["persistentVolumeClaim"]["claimName"] in claims
        for each in volumes.values()
        if "persistentVolumeClaim" in each
    )
    assert pod["serviceAccountName"] in named("ServiceAccount")


@every_pod
def test_history_outlives_the_pod_and_fits_its_volume_with_cached_results(kind: str) -> None:
    pod = iter_pods()[kind]
    (container,) = pod["containers"]
    (name,) = [each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if each["name"] == "history"]
    claim = named("PersistentVolumeClaim")[name]
    (cache,) = [each["value"] for each in container["env"] if each["name"] == result_store.SIZE_VARIABLE]
    history = config.read_config(FOLDER / "paropt.yml", root=FOLDER).history.keep.size
    assert parse_size(cache) + history <= parse_size(f"{claim['spec']['resources']['requests']['storage']}B")


@every_pod
def test_cached_results_stay_usable_when_their_volume_is_mounted_again(kind: str, tmp_path: Path) -> None:
    store = result_store.Store(tmp_path / "cache")
    store.prepare()
    for folder in (store.folder, *store.folder.rglob("*")):  # as the kubelet does it for `fsGroup`
        folder.chmod(folder.stat().st_mode | stat.S_ISGID | stat.S_IRWXU | stat.S_IRWXG)
    with pytest.raises(result_store.StoreUnusable):
        store.prepare()
    # The root of the volume belongs to root, so that its mode stays and no later mount changes the files in it.
    assert iter_pods()[kind]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_the_service_finds_the_pods_and_the_monitor_finds_the_service() -> None:
    (deployment,) = named("Deployment").values()
    (service,) = named("Service").values()
    (monitor,) = named("ServiceMonitor").values()
    pod_labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pod_labels.items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (endpoint,) = monitor["spec"]["endpoints"]
    (container_port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] == container_port["name"]
    assert set(monitor["spec"]) == {"selector", "endpoints"}
    assert set(endpoint) == {"port", "interval", "scrapeTimeout", "relabelings"}


def test_the_series_of_the_next_pod_have_the_same_labels(tmp_path: Path) -> None:
    """Its history continues, and as another instance it fired each alert again, beside that of the old pod."""
    (monitor,) = named("ServiceMonitor").values()
    relabellings = monitor["spec"]["endpoints"][0]["relabelings"]
    as_prometheus = [{re.sub("[A-Z]", r"_\g<0>", key).lower(): rule[key] for key in rule} for rule in relabellings]
    job = {"job_name": "paropt", "relabel_configs": as_prometheus}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    assert refusal(program("promtool"), "check", "config", tmp_path / "prometheus.yml") == ""
    instance, pod = as_prometheus
    assert instance["target_label"] == "instance"
    assert instance["source_labels"] == ["__meta_kubernetes_namespace", "__meta_kubernetes_service_name"]
    assert pod == {"action": "labeldrop", "regex": "pod"}


@pytest.mark.parametrize("name", named("PrometheusRule"))
def test_prometheus_accepts_the_rules(name: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(named("PrometheusRule")[name]["spec"]))
    assert refusal(program("promtool"), "check", "rules", tmp_path / "rules.yml") == ""


def build_with_kubectl(folder: Path) -> list[dict[str, Any]]:
    text = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout
    return load_all_yaml(text)


@needs_kubectl
def test_kubectl_builds_the_base() -> None:
    assert len(build_with_kubectl(FOLDER)) == len(OBJECTS) + len(KUSTOMIZATION["configMapGenerator"])


@needs_kubectl
def test_kubectl_builds_the_overlay_of_the_documentation(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "base")
    overlay = tmp_path / "overlays/shop"
    overlay.mkdir(parents=True)
    (text,) = re.findall(r"```yaml\n(apiVersion: kustomize.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    (overlay / "kustomization.yaml").write_text(text)
    (overlay / "paropt.yml").write_text("stages: []")
    objects = build_with_kubectl(overlay)
    assert {each["metadata"]["namespace"] for each in objects} == {"checks"}
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/shop-checks:42"
