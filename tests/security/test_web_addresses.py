"""Which addresses are anyone's, and which are ours."""

from ipaddress import ip_address

import pytest

from worker.web import is_public

OURS = [
    "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.9", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:a00:1::1",
    "2001:0:808:808::f5ff:fffe", "2001:0:a00:1::f7f7:f7f7", "2a00::5efe:127.0.0.1", "2a00::200:5efe:10.0.0.1",
    "fe80::1", "fe80::1%1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "2001:db8::1", "100::1",
]  # fmt: skip
EVERYONES = ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("address", OURS)
def test_address_of_ours_is_never_asked(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", EVERYONES)
def test_public_address_is_asked(address: str) -> None:
    assert is_public(ip_address(address))
