"""The client that a site's settings ask for; loads only what its protocol needs."""

from __future__ import annotations

from site_agent.pacs.query import PacsClient
from site_agent.pacs.settings import DimseSettings, PacsSettings
from site_agent.pacs.throttle import Throttle
from site_agent.pacs.trust import Resolve

__all__ = ["open_client"]


def open_client(settings: PacsSettings, resolve: Resolve) -> PacsClient:
    """Return the client of a PACS; nothing is connected yet.

    Raises
    ------
    UsageError
        If a certificate, key or password file cannot be used.
    """
    throttle = Throttle(concurrent=settings.concurrent, pause_s=settings.pause_s)
    connection = settings.connection
    if isinstance(connection, DimseSettings):
        from site_agent.pacs.dimse import DimseClient

        return DimseClient(
            connection,
            throttle,
            timeout_s=settings.timeout_s,
            maximum_studies=settings.maximum_studies,
            resolve=resolve,
        )
    from site_agent.pacs.dicomweb import DicomWebClient

    return DicomWebClient(
        connection,
        throttle,
        timeout_s=settings.timeout_s,
        maximum_studies=settings.maximum_studies,
        resolve=resolve,
    )
