//! A fault that only a real broker had shown, as a script.

use coracle::testkit::{BrokerOptions, World};
use coracle::{Client, Options, Qos, Version, Wait};

fn client(world: &World, version: Version) -> Client {
    let options = Options::new("mqtt://broker", "c")
        .expect("the URL is well-formed")
        .version(version)
        .connector(world.network())
        .clock(world.clock())
        .seed(1);
    let (client, driver) = Client::new(options);
    world.spawn(driver.run()).detach();
    client
}

#[test]
fn a_disconnect_ends_as_soon_as_the_last_bytes_are_flushed() {
    let world = World::new(BrokerOptions::new());
    let client = client(&world, Version::V5_0);
    let start = world.now();
    world
        .block_on(async {
            client.connected().await?;
            // Nothing will come back for this, so nothing but the write itself ends the drain.
            client
                .publish("a", "x", Qos::AtMostOnce, Wait::None)
                .await?;
            client.disconnect().await
        })
        .expect("nothing stays");
    assert_eq!(
        world.now(),
        start,
        "it waited although there was nothing to wait for"
    );
    world.broker(|broker, _| assert_eq!(broker.messages().len(), 1));
}
