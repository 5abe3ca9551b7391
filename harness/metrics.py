"""Quality metrics of a denoised clip: what they are called, their floors, and how they are computed in parallel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One quality metric, higher is better. `floor`: the value of an estimate that makes the metric fail."""

    label: str
    unit: str
    floor: float


METRICS = {
    "pesq_wb": Metric("PESQ-WB", "MOS-LQO", 1.0),
    "pesq_nb": Metric("PESQ-NB", "MOS-LQO", 1.0),
    "stoi": Metric("STOI", "", 0.0),
    "estoi": Metric("ESTOI", "", 0.0),
    "si_sdr": Metric("SI-SDR", "dB", -30.0),
    "snr": Metric("SNR", "dB", -30.0),
    "dnsmos_ovrl": Metric("DNSMOS OVRL", "MOS", 1.0),
    "dnsmos_sig": Metric("DNSMOS SIG", "MOS", 1.0),
    "dnsmos_bak": Metric("DNSMOS BAK", "MOS", 1.0),
}
