"""Guests that can't work: the port's status says in words why."""

from guest import Guest, Nic
from wait import wait_for


def test_memory_is_not_shared(switch):
    switch.weirctl("network", "add", "blue")
    nic = Nic(switch.path("vm1.sock"))
    switch.weirctl("port", "add", "vm1", "--network", "blue", "--path", nic.path)
    guest = Guest("vm1", switch.rundir, [nic], shared=False)
    try:
        guest.start().wait_up()
        guest.configure("10.0.0.1/24")
        guest.send("ping -i 0.2 10.0.0.2", 60)
        wait_for(lambda: "shared" in switch.port("vm1")["problem"], 60,
                 lambda: f"the status to speak of shared memory; it is {switch.port('vm1')}")
    finally:
        guest.kill()
    wait_for(lambda: "not connected" in switch.port("vm1")["problem"], 20,
             lambda: f"the status to say that no guest is there; it is {switch.port('vm1')}")


def test_driver_is_not_ready(switch):
    nic = Nic(switch.path("vm2.sock"))
    switch.weirctl("port", "add", "vm2", "--network", "blue", "--path", nic.path)
    guest = Guest("vm2", switch.rundir, [nic])
    try:
        guest.start().wait_up()
        device = guest.sh("basename $(readlink -f /sys/class/net/eth0/device)")
        guest.sh(f"echo {device} > /sys/bus/virtio/drivers/virtio_net/unbind")
        wait_for(lambda: "driver" in switch.port("vm2")["problem"], 20,
                 lambda: f"the status to speak of the driver; it is {switch.port('vm2')}")
        guest.sh(f"echo {device} > /sys/bus/virtio/drivers/virtio_net/bind")
        wait_for(lambda: not switch.port("vm2")["problem"] and switch.port("vm2")["link_state"] == "up", 20,
                 lambda: f"the port to be up; it is {switch.port('vm2')}")
    finally:
        guest.stop()
