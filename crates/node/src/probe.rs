//! Looks at the machine: cores, memory, instruction set, speed, port, disk.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tensor::{Context, FloatEnvironmentError, Isa};

/// Rows, columns and depth of the product that is timed: its three matrices fit the second-level cache.
const GEMM_SIZE: usize = 256;

/// What the machine has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// Cores that this process may use.
    pub cores: usize,
    /// All memory in bytes, when the system says it.
    pub memory_bytes: Option<u64>,
    /// Memory in bytes that programs can still take, when the system says it.
    pub memory_free_bytes: Option<u64>,
    /// The instruction set that the kernels use.
    pub isa: String,
    /// The processor family.
    pub architecture: String,
}

/// Measured speed of the matrix product that training uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// With one thread, in GFLOP/s.
    pub single_gflops: f64,
    /// With a thread per core, in GFLOP/s.
    pub all_gflops: f64,
}

/// Cores that this process may use, at least one.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Looks at the machine. Takes no time.
pub fn hardware() -> Hardware {
    Hardware {
        cores: cores(),
        memory_bytes: memory_bytes("MemTotal:"),
        memory_free_bytes: memory_bytes("MemAvailable:"),
        isa: Isa::detect().name().to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
    }
}

/// Measures the speed of `C = A·Bᵀ` in f32, as `cairn bench` does. Takes about half a second.
pub fn speed() -> Speed {
    let gflops = |ctx: &Context| crate::speed::product_gflops(ctx, [GEMM_SIZE; 3]);
    Speed { single_gflops: gflops(&Context::single()), all_gflops: gflops(&Context::new(cores())) }
}

/// Whether this processor computes as the determinism contract asks.
///
/// # Errors
/// [`FloatEnvironmentError`] when subnormal numbers are flushed to zero, or rounding is not to nearest.
pub fn float_environment() -> Result<(), FloatEnvironmentError> {
    tensor::check_float_environment()
}

/// Whether a TCP port on this machine's loopback interface is free.
pub fn port_is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

/// Bytes that can still be written to the file system of a directory, or of its nearest existing parent.
pub fn disk_free_bytes(directory: &Path) -> Option<u64> {
    directory.ancestors().find(|path| path.exists()).and_then(free_bytes)
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_path: &Path) -> Option<u64> {
    None
}

/// A line of the system's memory report. Only Linux has one.
fn memory_bytes(field: &str) -> Option<u64> {
    let report = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = report.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let hardware = hardware();
        assert!(hardware.cores >= 1);
        assert!(!hardware.isa.is_empty());
        if cfg!(target_os = "linux") {
            let (all, free) = (hardware.memory_bytes.unwrap(), hardware.memory_free_bytes.unwrap());
            assert!(all > 1 << 26 && free <= all, "{hardware:?}");
        }
    }

    #[test]
    fn a_speed_is_measured() {
        let speed = speed();
        assert!(speed.single_gflops > 0.01 && speed.all_gflops > 0.01, "{speed:?}");
    }

    #[test]
    fn a_taken_port_is_seen() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(!port_is_free(port));
        drop(taken);
        assert!(port_is_free(port));
    }

    #[test]
    fn free_space_is_that_of_the_nearest_existing_directory() {
        let directory = tempfile::tempdir().unwrap();
        if cfg!(unix) {
            assert!(disk_free_bytes(directory.path()).is_some_and(|bytes| bytes > 0));
            assert!(disk_free_bytes(&directory.path().join("not/there/yet")).is_some());
        }
    }
}
