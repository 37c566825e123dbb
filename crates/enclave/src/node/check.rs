//! What a start would find wrong with a configuration, found without a host: nothing is written, and
//! nobody is asked.

use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Entropy, KeyPair};
use coco_governance::genesis::check_founders;

use super::material::{alternative_names, curve, node_to_node};
use super::start::founder;
use super::{Node, StartError};
use crate::config::{CommandType, Config, Files};
use crate::interface::Interface;
use crate::join::JoinError;

impl Node {
    /// Whether a node can be started with this configuration and the files that it names, as far as
    /// they tell. `now_s` is in seconds since 1970.
    ///
    /// # Errors
    /// The first thing that a start would find wrong.
    pub fn check(
        config: &Config,
        files: &Files,
        entropy: &dyn Entropy,
        now_s: i64,
    ) -> Result<(), StartError> {
        for (name, interface) in &config.network.rpc_interfaces {
            let configured = Interface::configured(name, interface, None);
            configured.map_err(|error| StartError::Interface { name: name.clone(), error })?;
        }
        check_node_certificate(config, entropy, now_s)?;
        match config.command.kind {
            CommandType::Start => check_new_service(config, files, entropy, now_s),
            CommandType::Join => check_join(config, files),
            CommandType::Restart => Ok(()),
            command @ CommandType::Recover => Err(StartError::NotOffered { command }),
        }
    }
}

fn check_node_certificate(
    config: &Config,
    entropy: &dyn Entropy,
    now_s: i64,
) -> Result<(), StartError> {
    let subject: DistinguishedName = config.node_certificate.subject_name.parse()?;
    let names = alternative_names(config)?;
    let validity = Validity::days(now_s, config.node_certificate.initial_validity_days);
    let key = KeyPair::generate(curve(config), entropy)?;
    Certificate::for_node(&key, &subject, &names, validity, entropy)?;
    Ok(())
}

fn check_new_service(
    config: &Config,
    files: &Files,
    entropy: &dyn Entropy,
    now_s: i64,
) -> Result<(), StartError> {
    let start = config.command.start.clone().unwrap_or_default();
    let members: Vec<_> = files.members.iter().map(founder).collect();
    check_founders(&members, start.service_configuration.recovery_threshold)?;
    let subject: DistinguishedName = start.service_subject_name.parse()?;
    let validity = Validity::days(now_s, start.initial_service_certificate_validity_days);
    let key = KeyPair::generate(curve(config), entropy)?;
    Certificate::for_service(&key, &subject, validity, entropy)?;
    Ok(())
}

fn check_join(config: &Config, files: &Files) -> Result<(), StartError> {
    node_to_node(config).ok_or(JoinError::NoInterface)?;
    let service = files.service_certificate.as_deref().unwrap_or_default();
    Certificate::from_pem(service).map_err(JoinError::ServiceCertificate)?;
    Ok(())
}
