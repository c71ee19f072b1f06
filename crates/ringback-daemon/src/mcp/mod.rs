//! The tools of a run, served over the Model Context Protocol at `/mcp`.
//!
//! Owns: who may call, which tools a caller sees, and the way between the protocol and a [`Toolbox`]. Does not know
//! whether a ping may go out, where messages are kept, or when a run ends: the [`Toolbox`] decides, and whoever runs
//! the run issues and revokes its [`Tokens`].
//!
//! Every request stands alone: it carries its bearer token, and the token alone decides run and tools. There are no
//! protocol sessions, so nothing of a run outlives its token.

mod tokens;

mod tools;

mod arguments;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header, request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use ringback_model::escape;
use ringback_model::ping::EmbedInput;
use ringback_model::run::RunId;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};

use arguments::{Arguments, InvalidArguments};
use tokens::Grant;
pub use tokens::{NoRandomBytes, Tokens, ToolSet};
use tools::Tool;

/// Where the service answers.
pub const PATH: &str = "/mcp";
/// Bytes of one request's body.
const MAX_BODY: usize = 1024 * 1024;
/// Characters shown of a tool's name that no tool has.
const NAME_CHARS: usize = 64;

/// What the tools do.
///
/// The text of `Ok` is the tool's result, also when it says that nothing was sent: a refusal is an answer that the
/// agent reads, not an error. A call that has begun runs to its end even if the agent hangs up meanwhile, and a
/// revoked token ends no call that has begun.
#[async_trait]
pub trait Toolbox: Send + Sync + 'static {
    /// Sends the user a message. `message` is as the agent wrote it.
    async fn ping_user(&self, run: RunId, message: &str, critical: bool) -> Result<String, ToolFailure>;

    /// Sends the user a card. `input` is unchecked; its own `critical` is the same as `critical`.
    async fn discord_embed(
        &self,
        run: RunId,
        input: EmbedInput,
        critical: bool,
    ) -> Result<String, ToolFailure>;

    /// Leaves a message for the main session. `message` is as the agent wrote it.
    async fn report_updates(&self, run: RunId, message: &str) -> Result<String, ToolFailure>;
}

/// A tool could not do its work; the agent reads the message as an error of the tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ToolFailure {
    /// What went wrong and, where the agent can mend it, how.
    pub message: String,
}

/// The service at [`PATH`]. `allowed_hosts` are the names besides loopback's that a request's Host may have, each
/// `NAME` or `NAME:PORT`.
///
/// A request without a live token is 401, one with another Host or with an Origin (it comes from a page in a
/// browser) 403, a body over 1 MiB 413. The protocol's errors are rmcp's.
pub fn service(tokens: Tokens, toolbox: Arc<dyn Toolbox>, allowed_hosts: Vec<String>) -> Router {
    let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY)
        // An empty list would allow every Host; with loopback in it, it never is empty.
        .with_allowed_hosts(loopback.into_iter().chain(allowed_hosts))
        .enforce_origin_validation();
    let server = Server { toolbox };
    let sessions = Arc::new(NeverSessionManager::default());
    Router::new()
        .route_service(PATH, StreamableHttpService::new(move || Ok(server.clone()), sessions, config))
        .route_layer(middleware::from_fn_with_state(tokens, authenticate))
}

/// Lets a request with a live token pass, with the token's [`Grant`] in its place.
async fn authenticate(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    let Some(grant) = bearer(request.headers()).and_then(|token| tokens.look_up(token)) else {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "unauthorized")
            .into_response();
    };
    // The request's head goes along to the handler; the token shall not.
    request.headers_mut().remove(header::AUTHORIZATION);
    request.extensions_mut().insert(grant);
    next.run(request).await
}

/// The token of the one Authorization header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// What answers one request that was let in.
#[derive(Clone)]
struct Server {
    toolbox: Arc<dyn Toolbox>,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("ringback", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let grant = granted(&context)?;
        let tools = Tool::ALL.into_iter().filter(|tool| tool.is_in(grant.tools));
        Ok(ListToolsResult::with_all_items(tools.map(Tool::definition).collect()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let grant = granted(&context)?;
        let tool = Tool::ALL.into_iter().find(|tool| tool.name() == call.name && tool.is_in(grant.tools));
        let Some(tool) = tool else {
            let name = escape::escaped_and_cut(&call.name, NAME_CHARS);
            return Err(ErrorData::invalid_params(format!("this run has no tool named {name}"), None));
        };
        let result = match self.call(tool, grant.run, call.arguments.unwrap_or_default()).await {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            Err(failure) => CallToolResult::error(vec![ContentBlock::text(failure.message)]),
        };
        Ok(result.into())
    }
}

impl Server {
    async fn call(&self, tool: Tool, run: RunId, arguments: JsonObject) -> Result<String, ToolFailure> {
        let mut arguments = Arguments::of_call(arguments);
        match tool {
            Tool::PingUser => {
                let message = arguments.text("message")?;
                let critical = arguments.flag("critical")?.unwrap_or(false);
                self.toolbox.ping_user(run, &message, critical).await
            }
            Tool::DiscordEmbed => {
                let input = arguments.embed()?;
                let critical = input.critical;
                self.toolbox.discord_embed(run, input, critical).await
            }
            Tool::ReportUpdates => {
                let message = arguments.text("message")?;
                self.toolbox.report_updates(run, &message).await
            }
        }
    }
}

impl From<InvalidArguments> for ToolFailure {
    fn from(invalid: InvalidArguments) -> Self {
        ToolFailure { message: invalid.to_string() }
    }
}

/// What the token of this request allows.
fn granted(context: &RequestContext<RoleServer>) -> Result<Grant, ErrorData> {
    let head = context.extensions.get::<request::Parts>();
    let grant = head.and_then(|head| head.extensions.get::<Grant>()).copied();
    // No request comes here past `authenticate` without one; should that ever break, nothing is allowed.
    grant.ok_or_else(|| ErrorData::internal_error("the request has no run", None))
}
