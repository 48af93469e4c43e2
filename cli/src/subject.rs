//! The devices that one kind of device is proved on.

use evenkeel::{Device, DeviceKind, Error, Result};

/// What a suite runs on: one device, or the emulator under several schedules.
#[derive(Clone, Debug)]
pub struct Subject {
    devices: Vec<Device>,
}

impl Subject {
    /// One device.
    #[must_use]
    pub fn new(device: Device) -> Self {
        Self {
            devices: vec![device],
        }
    }

    /// The devices of a kind: the CPU, the first GPU, or the emulator with `seeds` schedules.
    ///
    /// # Errors
    /// What opening the device gives; [`Error::Unsupported`] for the emulator in a build without it.
    pub fn of(kind: DeviceKind, seeds: u64) -> Result<Self> {
        match kind {
            DeviceKind::Cpu => Ok(Self::new(Device::cpu())),
            DeviceKind::Cuda => Device::cuda(0).map(Self::new),
            _ => Self::emulated(seeds),
        }
    }

    /// An emulated H100 for each seed. They differ in their number of multiprocessors too: on one
    /// alone a handful of rows outnumber the clusters, so that persistent loops go round, and 132
    /// are the real device. 16 hold the largest cluster.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in a build without the emulator.
    pub fn emulated(seeds: u64) -> Result<Self> {
        #[cfg(feature = "emulator")]
        {
            use evenkeel::EmulatorOptions;
            use evenkeel::emulator::Architecture;
            let multiprocessors = [16, 1, 132, 8];
            let device = |seed: u64| {
                let count = multiprocessors[seed as usize % multiprocessors.len()];
                let whole = Architecture::sm_90();
                let architecture = if count == whole.multiprocessors {
                    whole
                } else {
                    whole.with_multiprocessors(count)
                };
                Device::emulated_with(EmulatorOptions::new().architecture(architecture).seed(seed))
            };
            let devices = (0..seeds.max(1)).map(device).collect::<Result<_>>()?;
            Ok(Self { devices })
        }
        #[cfg(not(feature = "emulator"))]
        {
            let _ = seeds;
            Err(Error::Unsupported {
                op: "Subject::emulated",
                what: "the emulator in this build".into(),
                remedy: "build with the feature `emulator`".into(),
            })
        }
    }

    /// The devices; at least one.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// One of the devices, for the `index`-th piece of work.
    ///
    /// # Errors
    /// None: there is always one.
    pub fn device(&self, index: usize) -> Result<&Device> {
        self.devices
            .get(index % self.devices.len().max(1))
            .ok_or(Error::Unsupported {
                op: "Subject::device",
                what: "no device".into(),
                remedy: "make it of one".into(),
            })
    }

    /// The kind of all of them.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        self.devices.first().map_or(DeviceKind::Cpu, Device::kind)
    }
}
