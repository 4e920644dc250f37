"""The words of a startup kit: a README for a hospital's IT, and settings to start from."""

from __future__ import annotations

from coordinator.enrolment.consortium import Consortium

__all__ = ["FLOWER_VERSION", "courier_toml", "readme", "site_yaml"]

FLOWER_VERSION = "1.41.0"


def readme(consortium: Consortium, site: str) -> str:
    """Return the kit's README.md, with the exact commands of one site."""
    host = consortium.address
    text = _HEAD.format(consortium=consortium.name, site=site)
    if host is None:
        return text + _BY_HAND.format(site=site)
    return text + _OVER_FLOWER.format(
        site=site,
        host=host.rpartition(":")[0],
        port=host.rpartition(":")[2],
        flower=FLOWER_VERSION,
    )


_HEAD = """# Joining {consortium} as {site}

For the IT of the hospital. No patient, no image and no row of a table leaves: what leaves are
counts and sums that passed this hospital's own disclosure policy, and each is written to a ledger
here before it goes.

`startup/` is signed by the lead as a whole and replaced by newer kits. `local/` is yours: put your
proxy's certificate, your policy and your notes there; no kit ever writes to it.

The commands run as root unless they name a user.

## 1. Install, and look at the kit

    python3 -m venv /opt/fedcac && /opt/fedcac/bin/pip install 'fedcac[site]'
    ln -s /opt/fedcac/bin/fedcac-site /usr/local/bin/

Users without a login, and the folders they need, by the rules that come with the package:

    cd /opt/fedcac/lib/python3*/site-packages/site_agent/deploy/systemd
    install -m 644 fedcac.sysusers /usr/lib/sysusers.d/fedcac.conf
    install -m 644 fedcac.tmpfiles /usr/lib/tmpfiles.d/fedcac.conf
    systemd-sysusers && systemd-tmpfiles --create
    cd -

    fedcac-site kit show {site}.zip

Telephone the lead on a number that you know (not one that came with this kit) and let them read
their fingerprint to you.

## 2. Join

"""

_OVER_FLOWER = """    fedcac-site --home /srv/fedcac/site init {site} --kit {site}.zip \\
      --courier-home /srv/fedcac/courier --fingerprint "WHAT THE LEAD READ TO YOU"

It makes two keys, which never leave this hospital, and writes `{site}.request.json`. Send that
file to the lead, by mail if you like: it holds no secret. Read the fingerprint that was printed
to the lead on the telephone.

## 3. Open one connection

| from | to | port | what |
|---|---|---|---|
| this machine | {host} | {port} | HTTPS, outgoing only |

Nothing comes in: no port is opened, no VPN is needed. Behind a proxy, set in
`/srv/fedcac/courier/courier.toml`:

    proxy = "http://proxy.hospital.example:3128"

If the proxy opens TLS to inspect it, exempt {host} from that, or copy your own authority's
certificate into `/srv/fedcac/courier` and name it:

    extra_ca = "hospital-ca.pem"

The two ends sign every message beneath TLS; a proxy that reads cannot write.

## 4. Look whether it works

    python3 -m venv /opt/fedcac-courier
    /opt/fedcac-courier/bin/pip install flwr=={flower}
    chown -R fedcac-site: /srv/fedcac/site && chown -R fedcac-courier: /srv/fedcac/courier
    systemd-tmpfiles --create
    sudo -u fedcac-courier /opt/fedcac-courier/bin/python \\
      /srv/fedcac/courier/fedcac-courier.pyz --home /srv/fedcac/courier check

Every line should begin with `ok`. Then, with nothing of yours and without sending anything:

    sudo -u fedcac-site fedcac-site --home /srv/fedcac/site doctor
    sudo -u fedcac-site fedcac-site --home /srv/fedcac/site dry-run

## 5. Keep three processes running

As the user `fedcac-courier`, who sees no patient, the two of the courier; as `fedcac-site`, who
sees no network, the agent. The units `fedcac-courier-node`, `fedcac-courier` and `fedcac-site` lie
beside the rules above:

    /opt/fedcac-courier/bin/python /srv/fedcac/courier/fedcac-courier.pyz \\
      --home /srv/fedcac/courier node
    /opt/fedcac-courier/bin/python /srv/fedcac/courier/fedcac-courier.pyz \\
      --home /srv/fedcac/courier run
    fedcac-site --home /srv/fedcac/site run
"""

_BY_HAND = """    fedcac-site --home /srv/fedcac/site init {site} --kit {site}.zip \\
      --fingerprint "WHAT THE LEAD READ TO YOU"

It makes a key, which never leaves this hospital, and writes `{site}.request.json`. Send that file
to the lead: it holds no secret. Read the fingerprint that was printed to the lead on the
telephone.

## 3. Exchange files

This consortium has no network connection. Files are carried between the lead and
`/srv/fedcac/site/spool`: into `inbox` what the lead sends, out of `outbox` what the lead is to
have.

## 4. Keep the agent running

    fedcac-site --home /srv/fedcac/site run
"""


def courier_toml(consortium: Consortium, site: str) -> str:
    """Return suggested settings of the courier; `fedcac-site init --kit` writes the real ones."""
    return f"""# What `fedcac-site init --kit` writes, with what a network may ask for.
site = "{site}"
spool = "../site/spool"
superlink = "{consortium.address}"
ca_certificate = "ca.crt"
port = 9100
limit_mb = 2048
# proxy = "http://proxy.hospital.example:3128"
# extra_ca = "hospital-ca.pem"
"""


def site_yaml(site: str) -> str:
    """Return suggested settings of the agent. A site decides; the strict values are the default."""
    return f"""# A suggestion; the site's own site.yaml is what counts.
name: {site}
manifest: manifest.csv
clinical_table: clinical.csv
policy: research
approval: manual
maximum_excluded_share: 0.2
device: auto
"""
