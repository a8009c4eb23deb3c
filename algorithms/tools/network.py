"""QGIS's network for the set-up: its network manager for our own requests, its proxy and certificates for uv."""

from __future__ import annotations

from pathlib import Path
from typing import Dict
from urllib.parse import quote

from qgis.core import QgsApplication, QgsBlockingNetworkRequest, QgsFeedback, QgsSettings
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtNetwork import QNetworkRequest

_SCHEMES = {"HttpProxy": "http", "HttpCachingProxy": "http", "Socks5Proxy": "socks5"}


def fetch(url: str, feedback: QgsFeedback) -> bytes:
    """Return what is at a URL, through QGIS's network manager (proxy, certificates, authentication).

    Raises:
        OSError: it cannot be fetched.
    """
    request = QgsBlockingNetworkRequest()
    code = request.get(QNetworkRequest(QUrl(url)), True, feedback)
    if code != QgsBlockingNetworkRequest.ErrorCode.NoError:
        raise OSError(f"{url}: {request.errorMessage()}")
    return bytes(request.reply().content())


def environment(folder: Path) -> Dict[str, str]:
    """Return the variables that tell uv of QGIS's proxy and certificates.

    Args:
        folder: for the file with the certificates.
    """
    return {**_proxy(QgsSettings()), **_certificates(folder)}


def _proxy(settings: QgsSettings) -> Dict[str, str]:
    if not settings.value("proxy/proxyEnabled", False, type=bool):
        return {}
    scheme = _SCHEMES.get(str(settings.value("proxy/proxyType", "")))
    host = str(settings.value("proxy/proxyHost", "") or "")
    if scheme is None or not host:
        # The system's own proxy: its variables reach uv by themselves.
        return {}
    port = str(settings.value("proxy/proxyPort", "") or "")
    user = str(settings.value("proxy/proxyUser", "") or "")
    password = str(settings.value("proxy/proxyPassword", "") or "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    address = f"{scheme}://{login}{host}{':' + port if port else ''}"
    found = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "ALL_PROXY": address}
    excluded = settings.value("proxy/noProxyUrls", []) or settings.value("proxy/proxyExcludedUrls", []) or []
    hosts = [QUrl(text).host() or text for text in ([excluded] if isinstance(excluded, str) else excluded)]
    if hosts:
        found["NO_PROXY"] = ",".join(hosts)
    return found


def _certificates(folder: Path) -> Dict[str, str]:
    """Return SSL_CERT_FILE where the user gave QGIS certificates of her own; uv knows the usual ones."""
    manager = QgsApplication.authManager()
    if manager is None or manager.isDisabled() or not manager.databaseCAs():
        return {}
    bundle = folder / "certificates.pem"
    bundle.write_bytes(bytes(manager.trustedCaCertsPemText()))
    return {"SSL_CERT_FILE": str(bundle)}
