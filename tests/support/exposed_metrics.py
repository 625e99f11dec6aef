"""Names of metrics that cAdvisor and node-exporter expose and that dashboards may use.

The list is independent of the dashboards, so that a misspelt name in a dashboard is found. The rig compares
the names that dashboards use with the metrics of the real programs.

Source: github.com/google/cadvisor metrics/prometheus.go and prometheus_machine.go, v0.52 (the kubelet's), for
`--enable_metrics=cpu,memory,network,process,oom_event`; github.com/prometheus/node_exporter
collector/fixtures/e2e-output.txt.
"""

from __future__ import annotations

from typing import Final


def _names(prefix: str, words: str) -> frozenset[str]:
    return frozenset(f"{prefix}_{word}" for word in words.split())


CADVISOR: Final = _names(
    "container",
    """
    cpu_usage_seconds_total cpu_user_seconds_total cpu_system_seconds_total
    cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total
    memory_cache memory_failcnt memory_failures_total memory_mapped_file memory_max_usage_bytes
    memory_rss memory_swap memory_usage_bytes memory_working_set_bytes
    network_receive_bytes_total network_receive_errors_total
    network_receive_packets_total network_receive_packets_dropped_total
    network_transmit_bytes_total network_transmit_errors_total
    network_transmit_packets_total network_transmit_packets_dropped_total
    file_descriptors processes sockets threads threads_max ulimits_soft oom_events_total
    last_seen start_time_seconds spec_cpu_period spec_cpu_quota spec_cpu_shares
    spec_memory_limit_bytes spec_memory_reservation_limit_bytes spec_memory_swap_limit_bytes
    """,
) | _names("machine", "cpu_cores cpu_physical_cores cpu_sockets memory_bytes swap_bytes")

NODE_EXPORTER: Final = _names(
    "node",
    """
    boot_time_seconds context_switches_total cpu_seconds_total forks_total intr_total load1 load5 load15
    procs_blocked procs_running time_seconds uname_info
    disk_io_now disk_io_time_seconds_total disk_io_time_weighted_seconds_total
    disk_read_bytes_total disk_read_time_seconds_total disk_reads_completed_total
    disk_write_time_seconds_total disk_writes_completed_total disk_written_bytes_total
    filesystem_avail_bytes filesystem_files filesystem_files_free filesystem_free_bytes
    filesystem_readonly filesystem_size_bytes
    memory_Buffers_bytes memory_Cached_bytes memory_MemAvailable_bytes memory_MemFree_bytes
    memory_MemTotal_bytes memory_SwapFree_bytes memory_SwapTotal_bytes
    netstat_Tcp_CurrEstab netstat_Tcp_InSegs netstat_Tcp_OutSegs netstat_Tcp_RetransSegs
    netstat_Udp_InDatagrams netstat_Udp_InErrors netstat_Udp_OutDatagrams netstat_Udp_RcvbufErrors
    network_mtu_bytes network_receive_bytes_total network_receive_drop_total network_receive_errs_total
    network_receive_packets_total network_speed_bytes network_transmit_bytes_total
    network_transmit_drop_total network_transmit_errs_total network_transmit_packets_total network_up
    nf_conntrack_entries nf_conntrack_entries_limit
    sockstat_TCP_alloc sockstat_TCP_inuse sockstat_TCP_mem_bytes sockstat_TCP_orphan sockstat_TCP_tw
    sockstat_UDP_inuse sockstat_UDP_mem_bytes sockstat_sockets_used
    softnet_dropped_total softnet_processed_total softnet_times_squeezed_total
    timex_estimated_error_seconds timex_maxerror_seconds timex_offset_seconds timex_sync_status
    vmstat_oom_kill vmstat_pgmajfault vmstat_pswpin vmstat_pswpout
    """,
)
