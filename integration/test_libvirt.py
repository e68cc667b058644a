"""The machine of docs/libvirt.md, started by a libvirtd of our own. Skipped where libvirt isn't installed."""

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from guest import Guest, Nic, die_with_parent, image, tail
from lab import ROOT
from wait import wait_for

pytestmark = pytest.mark.skipif(not shutil.which("libvirtd") or os.geteuid() != 0, reason="needs libvirt and root")


class Libvirt:
    """A libvirtd in a mount namespace, where its folders are ours."""

    def __init__(self, folder):
        self.folder = folder
        binds = []
        for name, target in (("etc", "/etc/libvirt"), ("run", "/run/libvirt"), ("lib", "/var/lib/libvirt"),
                             ("log", "/var/log/libvirt"), ("cache", "/var/cache/libvirt")):
            os.makedirs(f"{folder}/{name}/qemu")
            os.makedirs(target, exist_ok=True)
            binds.append(f"mount --bind {folder}/{name} {target}")
        with open(f"{folder}/etc/qemu.conf", "w") as f:
            f.write('stdio_handler = "file"\nsecurity_driver = "none"\nuser = "root"\ngroup = "root"\n'
                    'cgroup_controllers = []\nnamespaces = []\ndynamic_ownership = 0\n')
        with open(f"{folder}/etc/libvirtd.conf", "w") as f:
            f.write('auth_unix_rw = "none"\n')
        script = " && ".join(["mount --make-rprivate /"] + binds + ["exec libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid"])
        with open(f"{folder}/libvirtd.out", "w") as out:
            self.process = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out, preexec_fn=die_with_parent)
        wait_for(lambda: self.virsh("version", check=False).returncode == 0, 60,
                 lambda: "libvirtd: " + tail(f"{folder}/libvirtd.out"))

    def virsh(self, *args, check=True):
        done = subprocess.run(["virsh", "-c", f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock", *args],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        assert done.returncode == 0 or not check, done.stdout
        return done

    def stop(self):
        for name in self.virsh("list", "--name", check=False).stdout.split():
            self.virsh("destroy", name, check=False)
        self.process.terminate()
        self.process.wait(20)


def machine(folder, path):
    """The document's machine, with the socket's path of this test and with our kernel: (XML, its channel's socket)."""
    text = (ROOT / "docs/libvirt.md").read_text()
    domain = ET.fromstring(re.search(r"```xml\n(.*?)```", text, re.S).group(1))
    domain.find(".//interface/source").set("path", path)
    # A test guest is small and emulated; QEMU 7.2 wants virtio-net without MSI-X then.
    domain.set("type", "qemu")
    domain.find("memory").text = "192"
    domain.find("vcpu").text = "1"
    kernel, initramfs = image()
    for tag, value in (("kernel", kernel), ("initrd", initramfs), ("cmdline", "quiet mitigations=off net.ifnames=0")):
        ET.SubElement(domain.find("os"), tag).text = value
    domain.append(ET.fromstring("<features><acpi/></features>"))
    domain.append(ET.fromstring("<cpu mode='maximum'/>"))
    domain.find("devices").append(ET.fromstring(
        f"<channel type='unix'><source mode='bind' path='{folder}/vm3.ctl'/><target type='virtio' name='ctl'/></channel>"))
    qemu = "http://libvirt.org/schemas/domain/qemu/1.0"
    commandline = ET.SubElement(domain, f"{{{qemu}}}commandline")
    for value in ("-global", "virtio-net-pci.vectors=0"):
        ET.SubElement(commandline, f"{{{qemu}}}arg", value=value)
    return ET.tostring(domain, encoding="unicode")


@pytest.fixture(scope="module")
def libvirt(tmp_path_factory):
    folder = f"/tmp/weir-libvirt-{os.getpid()}"
    os.mkdir(folder)
    daemon = Libvirt(folder)
    yield daemon
    daemon.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_machine_of_the_document(switch, libvirt):
    switch.weirctl("network", "add", "blue")
    switch.weirctl("port", "add", "vm3", "--network", "blue", "--mode", "server", "--path", switch.path("vm3.sock"))
    switch.weirctl("port", "add", "vm1", "--network", "blue", "--path", switch.path("vm1.sock"))
    definition = switch.path("vm3.xml")
    with open(definition, "w") as f:
        f.write(machine(switch.rundir, switch.path("vm3.sock")))
    subprocess.run(["virt-xml-validate", definition, "domain"], check=True, stdout=subprocess.DEVNULL)
    libvirt.virsh("define", definition)

    # libvirt has vm3's process; the agent is reached as that of any guest.
    vm3 = Guest("vm3", switch.rundir, [Nic(mac="52:54:00:00:00:03")])
    with Guest("vm1", switch.rundir, [Nic(switch.path("vm1.sock"))]) as vm1:
        vm1.start()
        libvirt.virsh("start", "vm3")
        vm1.wait_up()
        vm3.wait_up()
        vm1.configure("10.0.0.1/24")
        vm3.configure("10.0.0.3/24")
        vm1.wait_ping("10.0.0.3")

        # The switch restarts: QEMU comes back to it.
        switch.restart_daemon()
        vm1.wait_ping("10.0.0.3")
        libvirt.virsh("destroy", "vm3")
    wait_for(lambda: switch.port("vm3")["link_state"] == "down", 20, "the port to be down")
