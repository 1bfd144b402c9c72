//! Where kernels run: the instruction set and the threads, of which neither changes a bit of any result, and the numeric profile,
//! which does.

use std::sync::Arc;

use rayon::prelude::*;

use crate::arch::{Isa, Variant};
use crate::environment::{FloatEnvironmentError, check_float_environment};
use crate::profile::Profile;

/// The instruction set, the threads and the numeric profile that kernels use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    isa: Isa,
    threads: Threads,
    profile: Profile,
}

impl Context {
    /// Makes a context with this many threads, the fastest instruction set of this machine and the default profile.
    pub fn new(threads: usize) -> Context {
        Context { isa: Isa::detect(), threads: Threads::new(threads), profile: Profile::default() }
    }

    /// Makes a single-threaded context with the fastest instruction set of this machine.
    pub fn single() -> Context {
        Context::new(1)
    }

    /// Makes the single-threaded reference context: portable code only.
    pub fn scalar() -> Context {
        Context { isa: Isa::Scalar, threads: Threads::single(), profile: Profile::default() }
    }

    /// Returns the same context with another instruction set.
    pub fn with_isa(self, isa: Isa) -> Context {
        Context { isa, ..self }
    }

    /// Returns the same context with another numeric profile: its results are other numbers.
    pub fn with_profile(self, profile: Profile) -> Context {
        Context { profile, ..self }
    }

    /// The numeric profile in use.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Which instantiation of the kernels to run.
    pub(crate) fn variant(&self) -> Variant {
        Variant { isa: self.isa, profile: self.profile }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads in use.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Runs `work` on one of the threads, so that the kernels that it calls start without handing over from thread to thread.
    /// It changes no bit of any result.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.threads.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Runs [`check_float_environment`] on the calling thread and on every worker thread.
    ///
    /// # Errors
    /// The first deviation found.
    pub fn check_float_environment(&self) -> Result<(), FloatEnvironmentError> {
        check_float_environment()?;
        match &self.threads.pool {
            Some(pool) => pool.broadcast(|_| check_float_environment()).into_iter().collect(),
            None => Ok(()),
        }
    }
}

/// A set of worker threads, or the calling thread alone.
///
/// Work is always split at fixed sizes, so the number of threads decides only who computes a piece, never what the pieces are.
#[derive(Clone, Debug)]
pub struct Threads {
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Threads {
    /// Makes a pool of `count` workers; 0 and 1 mean the calling thread. When the system refuses to start threads the calling
    /// thread does the work: slower, with the same bits.
    pub fn new(count: usize) -> Threads {
        if count <= 1 {
            return Threads::single();
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("tensor-{i}")).build();
        Threads { pool: pool.ok().map(Arc::new) }
    }

    /// Uses the calling thread only.
    pub fn single() -> Threads {
        Threads { pool: None }
    }

    /// The number of threads that compute at once.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Calls `work` for every item, each exactly once, in any order.
    pub(crate) fn for_each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync + Send) {
        match &self.pool {
            Some(pool) if items.len() > 1 => {
                pool.install(|| items.into_par_iter().with_max_len(1).for_each(work));
            }
            _ => items.into_iter().for_each(work),
        }
    }

    /// Maps every item; the results keep the items' order.
    pub(crate) fn map<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
        match &self.pool {
            Some(pool) if items.len() > 1 => pool.install(|| items.into_par_iter().with_max_len(1).map(work).collect()),
            _ => items.into_iter().map(work).collect(),
        }
    }
}
