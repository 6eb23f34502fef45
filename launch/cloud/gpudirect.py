"""GPUDirect networks of GKE's GPU nodes. Without them, NCCL falls back to TCP: some 4 instead of 340 GB/s on
a3-megagpu-8g (docs.nvidia.com/aicr/integrator-guide/gke-tcpxo-networking).

Follows "Maximize GPU network bandwidth in Standard mode clusters" (docs.cloud.google.com/kubernetes-engine/docs/how-to/
gpu-bandwidth-gpudirect-tcpx) and Google's examples (github.com/GoogleCloudPlatform/container-engine-accelerators:
gpudirect-tcpx, gpudirect-tcpxo with its best-practice.md, gpudirect-rdma), as of June 2026, read on 2 December 2026.
Never run on a cloud.
"""

import itertools
import json
from dataclasses import dataclass, field

PAGE = (
    '"Maximize GPU network bandwidth in Standard mode clusters", '
    "docs.cloud.google.com/kubernetes-engine/docs/how-to/gpu-bandwidth-gpudirect-tcpx"
)
HOST_DRIVER = "/home/kubernetes/bin/nvidia"
DEVICES = [*(f"/dev/nvidia{number}" for number in range(8)), "/dev/nvidiactl", "/dev/nvidia-uvm"]


@dataclass(frozen=True)
class GpuDirect:
    """What a pod needs for one of the GPUDirect networks."""

    name: str
    networks: tuple[str, ...]
    """Names of the cluster's Network objects, one for each network card, as in Google's examples."""
    first_interface: int
    """Number of the first network's interface, such as 1 for eth1."""
    mounts: dict[str, str]
    """{folder of the node: folder of the run's container}."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment of the run's container."""
    profile: str = ""
    """Script in the container that sets NCCL's variables."""
    capabilities: tuple[str, ...] = ()
    """Linux capabilities of the run's container."""
    daemon: str = ""
    """Name of the container that moves the data, "" if there is none."""
    daemon_fields: dict = field(default_factory=dict)
    daemon_mounts: dict[str, str] = field(default_factory=dict)
    daemon_devices: tuple[str, ...] = ()

    @property
    def needs(self) -> str:
        """Sentence on what the cluster must have."""
        return (
            f"the node pool needs the Network objects {self.networks[0]} to {self.networks[-1]} (or edit their names "
            f"below) and the DaemonSets of {PAGE}"
        )

    def annotations(self) -> dict[str, str]:
        """Return the annotations of the pod: its networks, and the devices of the daemon."""
        interfaces = (f"eth{number}" for number in itertools.count(self.first_interface))
        attached = [("eth0", "default"), *zip(interfaces, self.networks, strict=False)]
        found = {
            "networking.gke.io/default-interface": "eth0",
            "networking.gke.io/interfaces": json.dumps(
                [{"interfaceName": interface, "network": network} for interface, network in attached]
            ),
        }
        if self.daemon:
            devices = [{"path": path} for path in self.daemon_devices]
            found[f"devices.gke.io/container.{self.daemon}"] = json.dumps(devices)
        return found

    def volumes(self) -> list[dict]:
        folders = dict.fromkeys([*self.mounts, *self.daemon_mounts])
        return [{"name": volume_of(folder), "hostPath": {"path": folder}} for folder in folders]

    def sidecars(self) -> list[dict]:
        """Return the daemon as an init container that Kubernetes (1.29 or newer) stops after the run's container."""
        if not self.daemon:
            return []
        environment = [{"name": "LD_LIBRARY_PATH", "value": "/usr/local/nvidia/lib64"}]
        made = {"name": self.daemon, "restartPolicy": "Always", "env": environment}
        return [made | self.daemon_fields | {"volumeMounts": mounts_of(self.daemon_mounts)}]


def volume_of(folder: str) -> str:
    return folder.strip("/").replace("/", "-").replace("_", "-")


def mounts_of(folders: dict[str, str]) -> list[dict]:
    return [{"name": volume_of(folder), "mountPath": path} for folder, path in folders.items()]


IMAGES = "us-docker.pkg.dev/gce-ai-infra"
LIBRARIES = {f"{HOST_DRIVER}/lib64": "/usr/local/nvidia/lib64"}
KERNEL = {"/sys": "/hostsysfs", "/proc/sys": "/hostprocsysfs"}
TCPX = GpuDirect(
    "GPUDirect-TCPX", tuple(f"vpc{number}" for number in range(1, 5)), 1, LIBRARIES | {"/run/tcpx": "/run/tcpx"},
    {
        "NCCL_SOCKET_IFNAME": "eth0", "NCCL_CROSS_NIC": "0", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple",
        "NCCL_NET_GDR_LEVEL": "PIX", "NCCL_P2P_PXN_LEVEL": "0", "NCCL_NSOCKS_PERTHREAD": "4",
        "NCCL_SOCKET_NTHREADS": "1", "NCCL_MAX_NCHANNELS": "8", "NCCL_MIN_NCHANNELS": "8",
        "NCCL_DYNAMIC_CHUNK_SIZE": "524288", "NCCL_P2P_NET_CHUNKSIZE": "524288", "NCCL_P2P_PCI_CHUNKSIZE": "524288",
        "NCCL_P2P_NVL_CHUNKSIZE": "1048576", "NCCL_GPUDIRECTTCPX_UNIX_CLIENT_PREFIX": "/run/tcpx",
        "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME": "eth1,eth2,eth3,eth4", "NCCL_GPUDIRECTTCPX_CTRL_DEV": "eth0",
        "NCCL_GPUDIRECTTCPX_FORCE_ACK": "0", "NCCL_GPUDIRECTTCPX_TX_COMPLETION_NANOSLEEP": "1000",
        "NCCL_GPUDIRECTTCPX_PROGRAM_FLOW_STEERING_WAIT_MICROS": "1000000",
        "NCCL_GPUDIRECTTCPX_TX_BINDINGS": "eth1:8-21,112-125;eth2:8-21,112-125;eth3:60-73,164-177;eth4:60-73,164-177",
        "NCCL_GPUDIRECTTCPX_RX_BINDINGS": "eth1:22-35,124-139;eth2:22-35,124-139;eth3:74-87,178-191;eth4:74-87,178-191",
    },
    capabilities=("IPC_LOCK",), daemon="tcpx-daemon",
    daemon_fields={
        "image": f"{IMAGES}/gpudirect-tcpx/tcpgpudmarxd-dev:v2.0.12",
        "command": [
            "/tcpgpudmarxd/build/app/tcpgpudmarxd", "--gpu_nic_preset", "a3vm", "--gpu_shmem_type", "fd", "--uds_path",
            "/run/tcpx", "--setup_param", r'\"--verbose 128 2 0 \"',
        ],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
    },
    daemon_mounts=LIBRARIES | {"/run/tcpx": "/run/tcpx"} | KERNEL, daemon_devices=tuple(DEVICES),
)  # fmt: skip
TCPXO = GpuDirect(
    "GPUDirect-TCPXO", tuple(f"vpc{number}" for number in range(1, 9)), 1,
    LIBRARIES | {"/dev/aperture_devices": "/dev/aperture_devices"},
    {
        "NCCL_LIB_DIR": "/usr/local/nvidia/lib64", "NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY": "/dev/aperture_devices",
    },
    profile="/usr/local/nvidia/lib64/nccl-env-profile.sh", daemon="tcpxo-daemon",
    daemon_fields={
        "image": f"{IMAGES}/gpudirect-tcpxo/tcpgpudmarxd-dev:v1.0.21",
        "command": [
            "/bin/sh", "-c",
            "set -ex; chmod 755 /fts/entrypoint_rxdm_container.sh; /fts/entrypoint_rxdm_container.sh --num_hops=2",
        ],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_BIND_SERVICE"]}},
    },
    daemon_mounts=LIBRARIES | KERNEL, daemon_devices=(*DEVICES, "/dev/dmabuf_import_helper"),
)  # fmt: skip
RDMA = GpuDirect(
    "GPUDirect-RDMA", tuple(f"rdma-{number}" for number in range(8)), 2,
    {HOST_DRIVER: "/usr/local/nvidia", "/home/kubernetes/bin/gib": "/usr/local/gib"},
    profile="/usr/local/gib/scripts/set_nccl_env.sh",
)  # fmt: skip
MACHINES = {
    "nvidia-h100-80gb": ("a3-highgpu-8g", TCPX), "nvidia-h100-mega-80gb": ("a3-megagpu-8g", TCPXO),
    "nvidia-h200-141gb": ("a3-ultragpu-8g", RDMA), "nvidia-b200": ("a4-highgpu-8g", RDMA),
}  # fmt: skip
"""{GKE's accelerator label: (machine type, its GPUDirect network)}."""
