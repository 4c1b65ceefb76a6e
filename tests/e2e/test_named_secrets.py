"""Which commands send the secrets that a config names to the hosts that it names."""

from __future__ import annotations

from pathlib import Path

from support import projects
from support.fake_prometheus import fake_prometheus, number
from support.in_process import call_command
from support.real_servers import run

LOOKING = (["check"], ["plan"], ["history"], ["explain"], ["history", "--what-if", "2"], ["replay"])


def test_looking_at_a_project_sends_no_secret_but_running_it_does(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    project = tmp_path / "project"
    project.mkdir()
    with fake_prometheus(number("2")) as named:
        access = f'url: "{named.url}", bearer_token_file: {secret}'
        projects.write(
            project,
            'name: good, run: "true"',
            lanes=f"push: {{{access}}}\nfeedback: {{prometheus: {{{access}}}}}",
        )
        for command in LOOKING:
            looked = call_command(project, *command)
            assert looked.stderr.count("may not send a secret of this host") == (2 if command == ["check"] else 0)
        assert named.asked == []
        refused = run(project, "--once", projects.ANY_PORT)
        assert (refused.returncode, named.asked) == (2, [])
        assert "paropt.yml:2:" in refused.stderr and "may not send a secret of this host" in refused.stderr
        run(project, "--once", projects.ANY_PORT, PAROPT_ALLOW_CREDENTIALS=named.url)
        assert {asked.headers["authorization"] for asked in named.asked} == {"Bearer s3cret"}
