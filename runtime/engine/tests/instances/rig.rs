//! An engine, services on it, and requests to them.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_compiled::{CodeKey, file_name, seal};
use dunlin_engine::{Engine, EngineConfig, Failure, GuestBody, Service};
use dunlin_host::{Access, LogSink};
use dunlin_model::{
    AllocationId, AssignedAllocation, Digest, Fuel, FuelRate, Instances, Limits, LogRecord, Metering,
    Revision, ServiceSpec, Work, WorkloadKind, WorkloadSpec,
};
use http::{Request, Response};
use http_body_util::Empty;
use tempfile::TempDir;

const KEY: CodeKey = CodeKey([7; 32]);

struct Silent;

impl LogSink for Silent {
    fn record(&self, _record: LogRecord) {}
}

pub(crate) struct Rig {
    folder: TempDir,
    pub(crate) engine: Engine,
}

impl Rig {
    /// Returns one of a size of which many fit into a process, as tests run next to each other: one with
    /// [`EngineConfig::MOST_INSTANCES`] leaves no room for the pool of another.
    pub(crate) fn new() -> Self {
        Self::for_instances(64)
    }

    /// Returns one in which at most so many instances are to live at the same time.
    pub(crate) fn for_instances(instances: u32) -> Self {
        let platform = dunlin_engine::platform().unwrap();
        let engine = Engine::new(EngineConfig { code_key: KEY, platform, instances }).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), engine }
    }

    /// Writes `code` as that of the component with this digest and returns the file.
    pub(crate) fn keep(&self, code: &[u8], digest: Digest) -> PathBuf {
        let platform = dunlin_engine::platform().unwrap();
        let mut file = seal(KEY, platform, digest, code).to_vec();
        file.extend(code);
        let path = self.folder.path().join(file_name(platform, digest));
        std::fs::write(&path, file).unwrap();
        path
    }

    pub(crate) async fn service(&self, component: &[u8], instances: Instances) -> Service {
        let code = dunlin_engine::compile(component).unwrap();
        self.service_of(&code, Digest::of(component), instances).await
    }

    pub(crate) async fn service_of(&self, code: &[u8], digest: Digest, instances: Instances) -> Service {
        let loaded = self.engine.load(&self.keep(code, digest), digest).await.unwrap();
        let allocation = allocation(instances);
        let node = "node-1".parse().unwrap();
        Service::new(&loaded, &allocation, &node, Arc::new(Silent), &Access::none()).await.unwrap()
    }
}

impl Rig {
    /// Returns a service that is metered so, with core dumps or without, which tells `sink`.
    pub(crate) async fn service_as(
        &self,
        component: &[u8],
        limits: Limits,
        (coredump, metering): (bool, Metering),
        sink: Arc<dyn LogSink>,
    ) -> Service {
        let code = dunlin_engine::compile_as(component, metering).unwrap();
        let (digest, platform) =
            (Digest::of(component), dunlin_engine::platform().unwrap().for_code(metering));
        let path = self.folder.path().join(file_name(platform, digest));
        std::fs::write(&path, [seal(KEY, platform, digest, &code).as_slice(), &code].concat()).unwrap();
        let mut allocation = allocation(Instances::Fresh);
        let spec = std::sync::Arc::make_mut(&mut allocation.spec);
        (spec.component, spec.coredump, spec.metering, spec.limits) = (digest, coredump, metering, limits);
        let loaded = self.engine.load_for(&path, spec).await.unwrap();
        let node = "node-1".parse().unwrap();
        Service::new(&loaded, &allocation, &node, sink, &Access::none()).await.unwrap()
    }
}

pub(crate) async fn ask(service: &Service) -> Result<Response<GuestBody>, Failure> {
    let request = Request::get("http://guest.test/").header("host", "guest.test");
    service.handle(request.body(Empty::<Bytes>::new()).unwrap()).await
}

fn allocation(instances: Instances) -> AssignedAllocation {
    let plenty = 1_000_000_000_000;
    AssignedAllocation {
        id: AllocationId::new(1),
        workload: "tests/app/guest".parse().unwrap(),
        revision: Revision(1),
        spec: std::sync::Arc::new(WorkloadSpec {
            component: Digest::of(b""),
            kind: WorkloadKind::Service(ServiceSpec {
                allocations: 1,
                routes: Vec::new(),
                fuel_header: false,
                everywhere: false,
                rollout: Default::default(),
                health: None,
                on_partition: Default::default(),
            }),
            limits: Limits { fuel_rate: FuelRate(plenty), fuel_burst: Fuel(plenty), ..Limits::SERVICE },
            environment: [].into(),
            node_labels: [].into(),
            capabilities: Default::default(),
            instances,
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }),
        work: Work::Serve,
    }
}
