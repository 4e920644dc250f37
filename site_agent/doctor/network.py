"""Checks of the one line out of the hospital, seen from the courier's settings."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from fedcac.errors import UsageError
from site_agent.doctor.findings import Check, Finding, Situation, failed, ok, skipped, warning
from site_agent.flower_courier.line import Finding as LineFinding
from site_agent.flower_courier.line import look
from site_agent.flower_courier.settings import CourierSettings

__all__ = ["network_checks"]

_HAND_CARRIED = (
    "no courier.toml here: parcels are carried by hand, or the courier is another user's",
    "As the courier's user: `fedcac-site doctor --only dns,proxy,line,clock --courier-home DIR`.",
)
_LOOPBACK = ("127.0.0.1", "localhost")


def _settings(situation: Situation) -> CourierSettings | None:
    try:
        return situation.courier.settings()
    except PermissionError:
        return None
    except UsageError as error:
        if error.code == "usage.no_courier_folder":
            return None
        raise


def _dns(situation: Situation) -> Finding:
    settings = _settings(situation)
    if settings is None:
        return skipped(*_HAND_CARRIED)
    if settings.proxy is not None:
        host = urlsplit(settings.proxy).hostname or ""
        who = "the proxy"
    else:
        host = settings.superlink.rpartition(":")[0]
        who = "the coordinator"
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return failed(
            f"{host} ({who}) has no address here",
            "Correct its name in courier.toml, or have it added to the hospital's DNS.",
        )
    return ok(f"{host} ({who}) has {len({one[4][0] for one in answers})} addresses")


def _proxy(situation: Situation) -> Finding:
    settings = _settings(situation)
    if settings is None:
        return skipped(*_HAND_CARRIED)
    names = [name for name in ("HTTPS_PROXY", "https_proxy") if os.environ.get(name)]
    if settings.proxy is not None:
        parts = urlsplit(settings.proxy)
        return ok(f"{parts.hostname}:{parts.port}, as courier.toml says")
    if not names:
        return ok("none: neither courier.toml nor the environment names one")
    exempt = os.environ.get("NO_PROXY", os.environ.get("no_proxy", ""))
    if not set(_LOOPBACK) & {word.strip() for word in exempt.split(",")}:
        return warning(
            f"{names[0]} is set in the environment, and NO_PROXY does not exempt loopback",
            "Set `proxy` in courier.toml, or NO_PROXY=127.0.0.1,localhost beside HTTPS_PROXY.",
        )
    return warning(
        f"{names[0]} is set in the environment and not in courier.toml",
        "Set `proxy` in courier.toml: a service does not inherit a login's environment.",
    )


def network_checks() -> tuple[Check, ...]:
    """Return the checks; the line is looked at once for those that need it."""
    found: list[LineFinding] = []

    def looked(situation: Situation) -> list[LineFinding]:
        if not found:
            found.extend(look(situation.courier))
        return found

    return (
        Check("dns", _dns, needs_settings=False),
        Check("proxy", _proxy, needs_settings=False),
        Check("line", _line_check(looked), needs_settings=False),
        Check("clock", _clock_check(looked), needs_settings=False),
    )


Looked = Callable[[Situation], list[LineFinding]]


def _line_check(looked: Looked) -> Callable[[Situation], Finding]:
    def line(situation: Situation) -> Finding:
        if _settings(situation) is None:
            return skipped(*_HAND_CARRIED)
        about = [one for one in looked(situation) if not one.is_about_clock]
        bad = [one.text for one in about if not one.is_good]
        if bad:
            return failed(
                " ".join(bad),
                "Mend what is named first; docs/how-to/pass-the-doctor.md has each case.",
            )
        return ok(" ".join(one.text for one in about))

    return line


def _clock_check(looked: Looked) -> Callable[[Situation], Finding]:
    def clock(situation: Situation) -> Finding:
        if _settings(situation) is None:
            return skipped(*_HAND_CARRIED)
        about = [one for one in looked(situation) if one.is_about_clock]
        if not about:
            return skipped("the coordinator was not reached, or gave no time; see `line`")
        if not about[0].is_good:
            return failed(about[0].text, "Run NTP: a node 10 s fast or 400 s slow is turned away.")
        return ok(about[0].text)

    return clock
