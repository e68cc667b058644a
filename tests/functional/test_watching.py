"""What is shipped for Prometheus and Grafana: it is valid, and asks for nothing that the switch doesn't say."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from net import BROADCAST, SLOW, Lab, frame, mac, wait_for
from promtool import ROOT, program, promtool

PROMETHEUS, DASHBOARD = ROOT / "packaging/prometheus", ROOT / "packaging/grafana/weir.json"


def dashboard_expressions():
    """(where, expression) of every panel, variable and annotation."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        query = variable["query"]
        if isinstance(query, dict):
            yield variable["name"], re.fullmatch(r"label_values\((.*), \w+\)", query["query"]).group(1)
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def rules():
    return [rule for group in yaml.safe_load((PROMETHEUS / "weir-alerts.yml").read_text())["groups"] for rule in group["rules"]]


def metrics_in(expression):
    return set(re.findall(r"\b(?:weir|process)_[a-z_]+\b", expression))


@pytest.fixture(scope="module")
def live():
    """The names of all samples of a switch that has forwarded packets and lost some."""
    program()
    with Lab() as lab:
        lab.network("blue")
        for port in ("a", "b"):
            lab.tap(port, "--network", "blue", "external_ids:vm-id=1", "external_ids:vm-name=one")

        def names():
            lab.wire["a"].send(frame(1, BROADCAST))
            lab.wire["a"].send(frame(mac(2), mac(2)))
            lab.wire["a"].send(frame("01:00:00:00:00:01", BROADCAST))
            text = lab.weirctl("metrics")
            return {"names": set(re.findall(r"^([a-z_]+)[ {]", text, re.M)), "text": text}
        # Latency is sampled: one flush in some.
        seen = {}
        wait_for(lambda: seen.update(names()) or {"weir_port_latency_seconds_bucket", "weir_port_drops_total"} <= seen["names"], 20 * SLOW,
                 lambda: f"all metrics: {sorted(seen['names'])}", 0.01)
        yield seen


def test_alerts():
    assert "SUCCESS" in promtool("check", "rules", PROMETHEUS / "weir-alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", "weir-alerts-test.yml", cwd=PROMETHEUS)
    # Every alert is tested, where it is to come and where it isn't.
    tests = yaml.safe_load((PROMETHEUS / "weir-alerts-test.yml").read_text())["tests"]
    for rule in rules():
        cases = [bool(t.get("exp_alerts")) for test in tests for t in test["alert_rule_test"] if t["alertname"] == rule["alert"]]
        assert True in cases and False in cases, rule["alert"]


def test_alerts_use_what_is_there(live):
    for rule in rules():
        missing = metrics_in(rule["expr"]) - live["names"]
        assert not missing, f"{rule['alert']}: {missing}"


def test_scrape_configuration(tmp_path):
    text = (PROMETHEUS / "weir-scrape.yml").read_text()
    assert "/usr/share/weir/prometheus/weir-alerts.yml" in text
    (tmp_path / "prometheus.yml").write_text(text.replace("/usr/share/weir/prometheus", str(PROMETHEUS)))
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


def test_dashboard(live, tmp_path):
    expressions = list(dashboard_expressions())
    assert len(expressions) > 25
    for where, expression in expressions:
        missing = metrics_in(expression) - live["names"]
        assert not missing, f"{where}: {missing}"
        assert metrics_in(expression), where
    # Each is PromQL, once Grafana has put in its variables.
    filled = [e.replace("[$__rate_interval]", "[1m]").replace("$instance", ".*").replace("$port", ".*") for _, e in expressions]
    assert not [e for e in filled if "$" in e]
    group = {"groups": [{"name": "dashboard", "rules": [{"record": f"panel:{i}", "expr": e} for i, e in enumerate(filled)]}]}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump(group))
    assert f"{len(filled)} rules found" in promtool("check", "rules", tmp_path / "panels.yml")


def test_dashboard_layout():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken = set()
    for p in panels:
        at = p["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, p["title"]
        taken |= cells


def test_reference(live):
    """weir-metrics(7) has every metric that the switch says, and the switch says none without a line of help."""
    page = (Path(os.environ["WEIR_BUILD"]) / "docs/weir-metrics.7").read_text()
    documented = set(re.findall(r"^\.It Cm ([a-z_]+)$", page, re.M))
    families = re.findall(r"^# TYPE ([a-z_]+) (\w+)$", live["text"], re.M)
    assert len(families) > 50
    for name, kind in families:
        assert re.search(rf"^# HELP {name} \S", live["text"], re.M), name
        sample = name + {"counter": "_total", "info": "_info"}.get(kind, "")
        assert sample in documented or re.fullmatch(r"weir_[a-z_]+_entries(_limit)?", name), name
