// One call by hyper's own client, with the header fields of grpc-go, as a proxy on top of hyper sends them on.
use hyper::{Body, Client, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("no address")?;
    let client = Client::builder().http2_only(true).build_http::<Body>();
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", "grpc-go/1.85.0")
        .header("te", "trailers")
        .body(Body::from(&[0u8, 0, 0, 0, 0][..]))?;
    let response = client.request(request).await?;
    println!("{:?}", response);
    Ok(())
}
