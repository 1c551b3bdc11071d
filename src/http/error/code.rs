//! Every error code of the API, as data.

use axum::http::StatusCode;

/// A stable code with what it means unless an error says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// The text clients match on. It never changes once published.
    pub name: &'static str,
    /// The status it is answered with.
    pub status: StatusCode,
    /// The message shown when the error brings none of its own.
    pub message: &'static str,
}

/// Declares each code as a constant and lists all of them in [`ALL`], so that neither can be
/// extended without the other.
macro_rules! codes {
    ($($name:ident $status:ident $message:literal;)*) => {
        $(
            #[doc = $message]
            pub const $name: ErrorCode = ErrorCode {
                name: stringify!($name),
                status: StatusCode::$status,
                message: $message,
            };
        )*

        /// Every code, for documentation and tests.
        pub const ALL: &[ErrorCode] = &[$($name),*];
    };
}

codes! {
    // What the client sent.
    VALIDATION_ERROR BAD_REQUEST "The request is not valid.";
    QUERY_VALIDATION_ERROR BAD_REQUEST "The query parameters are not valid.";
    BAD_REQUEST BAD_REQUEST "The request cannot be understood.";
    INVALID_OPERATION BAD_REQUEST "The operation is not possible in this state.";
    INVALID_INPUT BAD_REQUEST "The request body cannot be read.";
    INVALID_REQUEST BAD_REQUEST "The request was refused.";
    INVALID_CURSOR BAD_REQUEST "The cursor is not valid.";
    DEVICE_ID_REQUIRED BAD_REQUEST "The X-Device-ID header is required.";
    INVALID_DEVICE_ID BAD_REQUEST "The X-Device-ID header must be a UUID.";
    PAYLOAD_HASH_MISMATCH BAD_REQUEST "The payload hash does not match the body.";
    CONFIG_VERSION_TOO_NEW SERVICE_UNAVAILABLE "The server does not know this configuration version yet.";
    PAYLOAD_TOO_LARGE PAYLOAD_TOO_LARGE "The request body is too large.";
    UPGRADE_REQUIRED UPGRADE_REQUIRED "This version of the app is no longer supported.";

    // Who the client is and what it may do.
    MALFORMED_TOKEN BAD_REQUEST "The access token is malformed.";
    UNAUTHORIZED UNAUTHORIZED "Authentication is required.";
    TOKEN_EXPIRED UNAUTHORIZED "The access token has expired.";
    INVALID_TOKEN UNAUTHORIZED "The access token is not valid.";
    FORBIDDEN FORBIDDEN "You are not allowed to do this.";
    ACCESS_DENIED FORBIDDEN "Access is denied.";
    INSUFFICIENT_PERMISSIONS FORBIDDEN "Your role does not allow this.";
    EMAIL_NOT_VERIFIED FORBIDDEN "The e-mail address is not verified.";
    USER_NOT_FOUND FORBIDDEN "No account belongs to this token.";
    ACCOUNT_ERASED GONE "The account has been erased.";

    // What is there.
    NOT_FOUND NOT_FOUND "The resource was not found.";
    RESOURCE_NOT_FOUND NOT_FOUND "The resource was not found.";
    INVENTORY_NOT_FOUND NOT_FOUND "The inventory item was not found.";
    METHOD_NOT_ALLOWED METHOD_NOT_ALLOWED "The method is not allowed here.";
    CONFLICT CONFLICT "The request conflicts with the current state.";
    VERSION_CONFLICT CONFLICT "The resource has changed in the meantime.";
    DUPLICATE_ENTRY CONFLICT "The entry exists already.";
    DUPLICATE_REQUEST CONFLICT "The request was made before with other content.";
    ACTIVE_PURCHASE_EXISTS CONFLICT "An active purchase of this product exists.";
    PURCHASE_ALREADY_FINISHED CONFLICT "The purchase is finished already.";
    INVENTORY_MISSING CONFLICT "The inventory item is missing.";
    INVENTORY_DEPLETED UNPROCESSABLE_ENTITY "The inventory item is depleted.";
    PREDICTION_INSUFFICIENT_DATA UNPROCESSABLE_ENTITY "There is not enough data for a prediction.";

    // What the server can bear, or cannot do.
    REQUEST_TIMEOUT REQUEST_TIMEOUT "The request body did not arrive in time.";
    RATE_LIMIT_EXCEEDED TOO_MANY_REQUESTS "Too many requests. Try again later.";
    INTERNAL_SERVER_ERROR INTERNAL_SERVER_ERROR "Something went wrong on our side.";
    DATABASE_ERROR INTERNAL_SERVER_ERROR "Something went wrong on our side.";
    CONFIGURATION_ERROR INTERNAL_SERVER_ERROR "Something went wrong on our side.";
    NOT_IMPLEMENTED NOT_IMPLEMENTED "This is not implemented.";
    EXTERNAL_SERVICE_ERROR BAD_GATEWAY "A service we depend on failed.";
    SERVICE_UNAVAILABLE SERVICE_UNAVAILABLE "The service is temporarily unavailable.";

    // Names that only the health routes use for some of the above.
    RATE_LIMITED TOO_MANY_REQUESTS "Too many requests. Try again later.";
    SERVER_ERROR INTERNAL_SERVER_ERROR "Something went wrong on our side.";
    TIMEOUT REQUEST_TIMEOUT "The request body did not arrive in time.";
    GATEWAY_TIMEOUT GATEWAY_TIMEOUT "A service we depend on did not answer in time.";
}

/// The code of that name, for refusals that travel through other layers as text.
pub fn find(name: &str) -> Option<ErrorCode> {
    ALL.iter().copied().find(|code| code.name == name)
}
