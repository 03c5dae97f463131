"""Who may talk to whom across a network: CURVE keys, and no network without them.

Keys are files as `zmq.auth.create_certificates` makes them: NAME.key is public, NAME.key_secret is
not.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from vo_stream.config import LinkConfig
from vo_stream.errors import LinkError

ZAP_DOMAIN = b"vo_stream"


def protect_link(socket: zmq.Socket[bytes], config: LinkConfig) -> None:
    """Prepare the link's socket for `config.endpoint`, tcp://host:port.

    Raises LinkError where the endpoint or a key file is wrong, or where a network would be used
    without keys.
    """
    host = _host(config.endpoint)
    socket.ipv6 = ":" in host
    if config.server_key and config.client_key:
        socket.curve_serverkey, _ = _certificate(config.server_key)
        socket.curve_publickey, socket.curve_secretkey = _pair(config.client_key)
    elif config.server_key or config.client_key:
        raise LinkError("link.server_key and link.client_key belong together: set both or none")
    elif not _is_loopback(host):
        raise LinkError(
            f"{config.endpoint}: a network needs keys; make them with "
            "zmq.auth.create_certificates and set link.server_key and link.client_key"
        )


def protect_adjuster(
    socket: zmq.Socket[bytes], endpoint: str, key: str, clients: str
) -> ThreadAuthenticator | None:
    """Prepare the adjuster's socket for `endpoint`: only clients with a key in a folder get in.

    `key`: file with the adjuster's secret key. `clients`: folder of the clients' public keys,
    NAME.key, as they are now. Returns what checks the keys, to be stopped in the end; None where
    there are none, which only this computer's own addresses may do. Raises LinkError.
    """
    host = _host(endpoint)
    socket.ipv6 = ":" in host
    if not (key and clients):
        if key or clients:
            raise LinkError("--key and --clients belong together: give both or none")
        if not _is_loopback(host):
            raise LinkError(f"{endpoint}: a network needs keys; give --key FILE and --clients DIR")
        return None
    if not any(Path(clients).glob("*.key")):
        raise LinkError(f"{clients}: has no client's public key (NAME.key)")
    for file in Path(clients).glob("*.key"):
        _certificate(str(file))
    socket.curve_publickey, socket.curve_secretkey = _pair(key)
    socket.curve_server = True
    socket.zap_domain = ZAP_DOMAIN
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without the authenticator nobody gets in
    authenticator = ThreadAuthenticator(socket.context)
    authenticator.start()
    authenticator.configure_curve(domain=ZAP_DOMAIN.decode(), location=clients)
    return authenticator


def _host(endpoint: str) -> str:
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if host is None or not port or url.scheme != "tcp":
        raise LinkError(f"{endpoint}: is no address of an adjuster; write tcp://host:port")
    return host


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _certificate(file: str) -> tuple[bytes, bytes | None]:
    """Return (public, secret or None) of a key file; raises LinkError."""
    try:
        public, secret = zmq.auth.load_certificate(file)
    except (OSError, ValueError) as error:
        raise LinkError(f"{file}: cannot be read as a CURVE key ({error})") from None
    for key in (public, secret):
        if key is not None and len(key) != 40:  # Z85 of 32 bytes
            raise LinkError(f"{file}: holds a damaged CURVE key")
    return public, secret


def _pair(file: str) -> tuple[bytes, bytes]:
    public, secret = _certificate(file)
    if secret is None:
        raise LinkError(f"{file}: holds no secret key; give the file NAME.key_secret")
    return public, secret
