//! Every authentication policy, passed and refused, over a whole node.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code, on the host's side"
)]

mod served;
mod simulated;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coco_adapter::{AuthnPolicy, Call, Caller, EndpointProperties, Mode, Registry};
use coco_crypto::cose::{Header, label};
use coco_crypto::{CoseSign1, Curve, HashAlgorithm, KeyPair, RsaKeyPair};
use coco_governance::tables::{
    Base64, JWT_PUBLIC_SIGNING_KEYS, JwtKey, MEMBERS, MemberStatus, NODES, NodeStatus, USER_CERTS,
};
use http::{Method, StatusCode};
use serde_json::{Value as Json, json};
use served::client::{Answer, Client, handshake};
use served::{START_S, Served, Someone};
use simulated::{SeededEntropy, in_virtual_time};

/// One endpoint per policy, which says who the caller is.
fn app() -> Arc<Registry> {
    let mut app = Registry::new("test", "Test", "");
    let all_of = AuthnPolicy::AllOf(vec![AuthnPolicy::UserCert, AuthnPolicy::Jwt]);
    for (path, policies) in [
        ("/nobody", vec![]),
        ("/no_auth", vec![AuthnPolicy::NoAuth]),
        ("/user", vec![AuthnPolicy::UserCert]),
        ("/member", vec![AuthnPolicy::MemberCert]),
        ("/any", vec![AuthnPolicy::AnyCert]),
        ("/node_cert", vec![AuthnPolicy::NodeCert]),
        ("/jwt", vec![AuthnPolicy::Jwt]),
        ("/user_cose", vec![AuthnPolicy::UserCoseSign1]),
        ("/member_cose", vec![AuthnPolicy::MemberCoseSign1]),
        ("/active_cose", vec![AuthnPolicy::ActiveMemberCoseSign1]),
        ("/all_of", vec![all_of]),
        ("/several", vec![AuthnPolicy::UserCert, AuthnPolicy::Jwt, AuthnPolicy::NoAuth]),
        ("/user_or_jwt", vec![AuthnPolicy::UserCert, AuthnPolicy::Jwt]),
    ] {
        let properties = EndpointProperties {
            mode: Mode::ReadOnly,
            authn_policies: policies,
            ..EndpointProperties::default()
        };
        let tell = |call: &mut Call<'_>| call.reply(&describe(call.caller));
        app.add(Method::POST, path, properties, json!({}), tell).unwrap();
    }
    Arc::new(app)
}

fn describe(caller: &Caller) -> Json {
    match caller {
        Caller::Unauthenticated => json!("unauthenticated"),
        Caller::NoAuth => json!("no_auth"),
        Caller::UserCert { id, data, .. } => json!(["user", id.to_string(), data]),
        Caller::MemberCert { id, data, .. } => json!(["member", id.to_string(), data]),
        Caller::AnyCert { cert } => json!(["any", cert.len() > 100]),
        Caller::Jwt { key_issuer, payload, .. } => json!(["jwt", key_issuer, payload["sub"]]),
        Caller::UserCose { id, envelope, .. } | Caller::MemberCose { id, envelope, .. } => {
            let content = String::from_utf8_lossy(&envelope.content).into_owned();
            json!(["cose", id.to_string(), content, envelope.message_type])
        }
        Caller::Node { id } => json!(["node", id.to_string()]),
        Caller::AllOf(callers) => callers
            .iter()
            .map(|(name, caller)| (name.to_string(), describe(caller)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

async fn open_service() -> Served {
    let served = Served::start(app()).await;
    served.open().await;
    served
}

/// 401 with one detail per policy; the details' texts.
fn refusals(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
    assert_eq!(answer.code(), "InvalidAuthenticationInfo");
    let details = answer.json()["error"]["details"].as_array().unwrap().clone();
    let text = |detail: &Json, field: &str| detail[field].as_str().unwrap().to_owned();
    details
        .iter()
        .inspect(|detail| assert_eq!(detail["code"], "InvalidAuthenticationInfo"))
        .map(|detail| (text(detail, "auth_policy"), text(detail, "message")))
        .collect()
}

async fn post(client: &mut Client, path: &str) -> Answer {
    client.call("POST", path, "", b"").await
}

#[test]
fn certificates_identify_participants_members_and_anybody() {
    in_virtual_time(async {
        let served = open_service().await;
        let (user, stranger) = (Someone::new(1, Curve::P256, 10), Someone::new(2, Curve::P256, 10));
        served.add_user(&user, Some(json!({"role": "teller"}))).await;

        let mut client = Client::tls(&served, Some(&user)).await;
        let expected = json!(["user", user.id().to_string(), {"role": "teller"}]);
        for _ in 0..3 {
            assert_eq!(post(&mut client, "/app/user").await.json(), expected);
        }
        assert_eq!(post(&mut client, "/any").await.json(), json!(["any", true]));
        let refused = refusals(&post(&mut client, "/member").await);
        assert_eq!(refused[0].0, "member_cert");

        let mut member = Client::tls(&served, Some(&served.member)).await;
        let expected = json!(["member", served.member.id().to_string(), {"role": "founder"}]);
        assert_eq!(post(&mut member, "/member").await.json(), expected);
        assert_eq!(refusals(&post(&mut member, "/user").await)[0].0, "user_cert");

        let mut other = Client::tls(&served, Some(&stranger)).await;
        let refused = refusals(&post(&mut other, "/user").await);
        assert_eq!(refused[0].1, "Could not find matching user certificate.");
        assert_eq!(post(&mut other, "/any").await.status, StatusCode::OK);
        let mut nobody = Client::tls(&served, None).await;
        assert_eq!(refusals(&post(&mut nobody, "/user").await)[0].1, "No caller user certificate.");
        refusals(&post(&mut nobody, "/any").await);
        assert_eq!(post(&mut nobody, "/nobody").await.json(), "unauthenticated");
        assert_eq!(post(&mut nobody, "/no_auth").await.json(), "no_auth");
        assert_eq!(post(&mut nobody, "/several").await.json(), "no_auth");

        // Data and removal take effect on the open session.
        served.add_user(&user, Some(json!("promoted"))).await;
        let expected = json!(["user", user.id().to_string(), "promoted"]);
        assert_eq!(post(&mut client, "/user").await.json(), expected);
        served.govern(|tx| USER_CERTS.remove(tx, &user.id())).await;
        refusals(&post(&mut client, "/user").await);
    });
}

#[test]
fn an_expired_certificate_is_refused_but_for_members() {
    in_virtual_time(async {
        let served = open_service().await;
        let user = Someone::new(1, Curve::P384, 2);
        served.add_user(&user, None).await;
        let mut client = Client::tls(&served, Some(&user)).await;
        let expected = json!(["user", user.id().to_string(), null]);
        assert_eq!(post(&mut client, "/user").await.json(), expected);
        tokio::time::advance(Duration::from_secs(400 * 86_400)).await;
        let mut client = Client::tls(&served, Some(&user)).await;
        refusals(&post(&mut client, "/user").await);
        refusals(&post(&mut client, "/any").await);
        let mut member = Client::tls(&served, Some(&served.member)).await;
        assert_eq!(post(&mut member, "/member").await.status, StatusCode::OK);
    });
}

#[test]
fn a_trusted_node_is_known_by_its_key() {
    in_virtual_time(async {
        let served = open_service().await;
        let identity = served.node.identity();
        let pems = (identity.self_signed.to_pem(), identity.node_key.to_pem().to_string());
        let wire = handshake(&served, "main", Some(pems), &[b"http/1.1"]).await.unwrap();
        let mut client = Client::on(wire);
        let expected = json!(["node", served.node.id().to_string()]);
        assert_eq!(post(&mut client, "/node_cert").await.status, StatusCode::OK);
        assert_eq!(post(&mut client, "/app/node_cert").await.json(), expected);
        served
            .govern(|tx| {
                let id = served.node.id();
                let mut info = NODES.get(tx, &id).unwrap().unwrap();
                info.status = NodeStatus::Retired;
                NODES.put(tx, &id, &info);
            })
            .await;
        refusals(&post(&mut client, "/app/node_cert").await);
        let user = Someone::new(1, Curve::P256, 10);
        refusals(&post(&mut Client::tls(&served, Some(&user)).await, "/app/node_cert").await);
    });
}

/// An issuer's key and its tokens.
enum Issuer {
    Ec(KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Issuer {
    fn token(&self, header: Json, payload: &Json) -> String {
        let encode = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(&header), encode(payload));
        let signature = match self {
            Self::Ec(key) => key.sign_p1363(signed.as_bytes()),
            Self::Rsa(key) => key.sign_pkcs1(HashAlgorithm::Sha256, signed.as_bytes()).unwrap(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ec(key) => key.public().spki_der().to_vec(),
            Self::Rsa(key) => key.public().spki_der(),
        }
    }
}

async fn register(served: &Served, kid: &str, issuer: &Issuer, constraint: Option<&str>) {
    let key = JwtKey {
        public_key: Base64(issuer.spki()),
        issuer: "https://issuer.example".to_owned(),
        constraint: constraint.map(str::to_owned),
    };
    served.govern(|tx| JWT_PUBLIC_SIGNING_KEYS.put(tx, &kid.to_owned(), &vec![key])).await;
}

async fn with_token(client: &mut Client, path: &str, token: &str) -> Answer {
    let header = format!("authorization: Bearer {token}\r\n");
    client.call("POST", path, &header, b"").await
}

#[test]
fn tokens_identify_their_bearer() {
    in_virtual_time(async {
        let served = open_service().await;
        let entropy = SeededEntropy::new(5);
        let ec = Issuer::Ec(KeyPair::generate(Curve::P256, &entropy).unwrap());
        let rsa = Issuer::Rsa(Box::new(RsaKeyPair::generate(2048).unwrap()));
        register(&served, "ec", &ec, None).await;
        register(&served, "rsa", &rsa, Some("https://login.example/{tenantid}/v2.0")).await;
        let es256 = || json!({"alg": "ES256", "kid": "ec", "typ": "JWT"});
        let rs256 = || json!({"alg": "RS256", "kid": "rsa"});
        let claims = json!({"sub": "ada", "exp": START_S + 600, "nbf": START_S - 5});
        let mut tenant = claims.clone();
        tenant["tid"] = json!("t1");
        tenant["iss"] = json!("https://login.example/t1/v2.0");

        let mut client = Client::plain(&served);
        let expected = json!(["jwt", "https://issuer.example", "ada"]);
        for token in [ec.token(es256(), &claims), rsa.token(rs256(), &tenant)] {
            for _ in 0..2 {
                let answer = with_token(&mut client, "/jwt", &token).await;
                assert_eq!(answer.json(), expected);
            }
        }

        let with = |base: &Json, name: &str, value: Json| {
            let mut changed = base.clone();
            changed[name] = value;
            changed
        };
        let mut no_expiry = claims.clone();
        no_expiry.as_object_mut().unwrap().remove("exp");
        let good = ec.token(es256(), &claims);
        let forged = format!("{}.{}", &good[..good.rfind('.').unwrap()], "AAAA");
        let other = Issuer::Ec(KeyPair::generate(Curve::P256, &entropy).unwrap());
        for (token, why) in [
            (ec.token(es256(), &with(&claims, "exp", json!(START_S - 10))), "(exp)"),
            (ec.token(es256(), &with(&claims, "nbf", json!(START_S + 99))), "(nbf)"),
            (ec.token(es256(), &no_expiry), "exp"),
            (ec.token(with(&es256(), "kid", json!("unknown")), &claims), "kid unknown"),
            (ec.token(with(&es256(), "alg", json!("none")), &claims), "none"),
            (ec.token(with(&es256(), "alg", json!("HS256")), &claims), "HS256"),
            (ec.token(with(&es256(), "alg", json!("RS256")), &claims), "verification"),
            (ec.token(with(&es256(), "alg", json!("ES384")), &claims), "verification"),
            (other.token(es256(), &claims), "verification"),
            (forged, "verification"),
            (rsa.token(rs256(), &claims), "constraint"),
            (rsa.token(rs256(), &with(&tenant, "tid", json!("t2"))), "constraint"),
            (rsa.token(rs256(), &with(&tenant, "tid", json!("t1/v2.0#"))), "constraint"),
            ("abc".to_owned(), "Malformed"),
            ("a.b.c".to_owned(), "Malformed"),
            ("..".to_owned(), "Malformed"),
            ("x".repeat(40_000 / 4), "Malformed"),
        ] {
            let answer = with_token(&mut client, "/jwt", &token).await;
            let refused = refusals(&answer);
            assert_eq!(refused[0].0, "jwt");
            assert!(refused[0].1.contains(why), "{}: expected {why}", refused[0].1);
            let challenge = answer.header("www-authenticate").unwrap();
            let expected = r#"Bearer realm="JWT bearer token access", error="invalid_token""#;
            assert_eq!(challenge, expected);
        }
        let answer = client.call("POST", "/jwt", "authorization: Basic eDp5\r\n", b"").await;
        assert!(refusals(&answer)[0].1.contains("bearer"));
        assert!(refusals(&post(&mut client, "/jwt").await)[0].1.contains("Missing"));

        // A verified token is remembered, but not beyond its time or its key's registration.
        assert_eq!(with_token(&mut client, "/jwt", &good).await.status, StatusCode::OK);
        served.govern(|tx| JWT_PUBLIC_SIGNING_KEYS.remove(tx, &"ec".to_owned())).await;
        refusals(&with_token(&mut client, "/jwt", &good).await);
        register(&served, "ec", &other, None).await;
        refusals(&with_token(&mut client, "/jwt", &good).await);
        register(&served, "ec", &ec, None).await;
        assert_eq!(with_token(&mut client, "/jwt", &good).await.status, StatusCode::OK);
        tokio::time::advance(Duration::from_secs(601)).await;
        let mut client = Client::plain(&served);
        assert!(refusals(&with_token(&mut client, "/jwt", &good).await)[0].1.contains("(exp)"));
    });
}

#[test]
fn several_policies_are_alternatives_unless_all_are_asked_for() {
    in_virtual_time(async {
        let served = open_service().await;
        let user = Someone::new(1, Curve::P256, 10);
        served.add_user(&user, None).await;
        let issuer = Issuer::Ec(KeyPair::generate(Curve::P256, &SeededEntropy::new(5)).unwrap());
        register(&served, "k", &issuer, None).await;
        let claims = json!({"sub": "ada", "exp": START_S + 600});
        let token = issuer.token(json!({"alg": "ES256", "kid": "k"}), &claims);

        let mut both = Client::tls(&served, Some(&user)).await;
        let answer = with_token(&mut both, "/all_of", &token).await.json();
        assert_eq!(answer["user_cert"][1], user.id().to_string());
        assert_eq!(answer["jwt"][2], "ada");
        assert_eq!(refusals(&post(&mut both, "/all_of").await)[0].0, "all_of");
        let mut nobody = Client::plain(&served);
        assert_eq!(refusals(&with_token(&mut nobody, "/all_of", &token).await).len(), 1);
        assert_eq!(with_token(&mut nobody, "/user_or_jwt", &token).await.json()[0], "jwt");
        assert_eq!(with_token(&mut both, "/user_or_jwt", &token).await.json()[0], "user");
        let tried: Vec<_> = refusals(&post(&mut nobody, "/user_or_jwt").await);
        assert_eq!([&*tried[0].0, &*tried[1].0], ["user_cert", "jwt"]);
    });
}

fn sign(signer: &Someone, content: &str, headers: &[(&str, Json)]) -> Vec<u8> {
    let id = signer.id().to_string().into_bytes();
    let mut protected = Header::for_key(signer.key.public()).with(label::KEY_ID, id.as_slice());
    for (name, value) in headers {
        protected = match value {
            Json::Number(number) => protected.with(*name, number.as_u64().unwrap()),
            other => protected.with(*name, other.as_str().unwrap()),
        };
    }
    CoseSign1::sign(protected, content.as_bytes().to_vec(), &signer.key).encode()
}

const COSE: &str = "content-type: application/cose\r\n";

#[test]
fn signed_bodies_identify_their_signer() {
    in_virtual_time(async {
        let served = open_service().await;
        let user = Someone::new(1, Curve::P256, 10);
        served.add_user(&user, None).await;
        let mut client = Client::plain(&served);

        let signed = sign(&user, "hello", &[]);
        let answer = client.call("POST", "/user_cose", COSE, &signed).await;
        assert_eq!(answer.json(), json!(["cose", user.id().to_string(), "hello", null]));
        let parameters = "content-type: application/cose; cose-type=\"cose-sign1\"\r\n";
        let answer = client.call("POST", "/user_cose", parameters, &signed).await;
        assert_eq!(answer.status, StatusCode::OK);

        let governance =
            [("ccf.gov.msg.type", json!("proposal")), ("ccf.gov.msg.created_at", json!(START_S))];
        let by_member = sign(&served.member, "{}", &governance);
        let answer = client.call("POST", "/member_cose", COSE, &by_member).await;
        let expected = json!(["cose", served.member.id().to_string(), "{}", "proposal"]);
        assert_eq!(answer.json(), expected);

        // Not active yet.
        let answer = client.call("POST", "/active_cose", COSE, &by_member).await;
        assert_eq!(refusals(&answer)[0].1, "Signer is not an ACTIVE member.");
        served
            .govern(|tx| {
                let mut info = MEMBERS.get(tx, &served.member.id()).unwrap().unwrap();
                info.status = MemberStatus::Active;
                MEMBERS.put(tx, &served.member.id(), &info);
            })
            .await;
        let answer = client.call("POST", "/active_cose", COSE, &by_member).await;
        assert_eq!(answer.status, StatusCode::OK);

        let mut tampered = signed.clone();
        let at = tampered.windows(5).position(|window| window == b"hello").unwrap();
        tampered[at] ^= 1;
        let stranger = sign(&Someone::new(9, Curve::P256, 10), "hello", &[]);
        let detached = CoseSign1::sign_detached(
            Header::for_key(user.key.public())
                .with(label::KEY_ID, user.id().to_string().into_bytes().as_slice()),
            b"hello",
            &user.key,
        );
        for (path, extra, body, why) in [
            ("/user_cose", COSE, &tampered, "does not verify"),
            ("/user_cose", COSE, &stranger, "not a known user"),
            ("/user_cose", COSE, &by_member, "not a known user"),
            ("/user_cose", COSE, &detached.encode(), "detached"),
            ("/user_cose", "", &signed, "application/cose"),
            ("/user_cose", "content-type: application/json\r\n", &signed, "application/cose"),
            ("/user_cose", COSE, &b"hello".to_vec(), "not a COSE_Sign1"),
            ("/user_cose", COSE, &Vec::new(), "not a COSE_Sign1"),
            ("/member_cose", COSE, &signed, "not a known member"),
            ("/member_cose", COSE, &sign(&served.member, "", &[]), "ccf.gov.msg.type"),
            ("/member_cose", COSE, &sign(&served.member, "", &governance[..1]), "created_at"),
        ] {
            let refused = refusals(&client.call("POST", path, extra, body).await);
            assert!(refused[0].1.contains(why), "{}: expected {why}", refused[0].1);
        }
    });
}
