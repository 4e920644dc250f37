# Zero-inflated Poisson regression by pscl::zeroinfl, and with a random intercept by glmmTMB.
# Run from the repository root: Rscript tests/oracle/zero_inflated.R
# Data: pscl::bioChemists (R package pscl, GPL-2), only the columns that are used; the scores are
# drawn here.
suppressPackageStartupMessages({library(pscl); library(glmmTMB)})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
out <- "tests/oracle/data"
full <- function(v) sprintf("%.17g", v)
put <- function(d, name) {
  write.csv(d, file.path(out, paste0("zero_inflated_", name, ".csv")), row.names = FALSE,
            quote = FALSE)
}
long <- function(name, term, estimate, se, loglik) {
  data.frame(dataset = name, term = term, estimate = full(estimate), se = full(se),
             loglik = full(loglik))
}

b <- data.frame(y = bioChemists$art, x1 = as.numeric(bioChemists$fem == "Women"),
                x2 = bioChemists$ment, z1 = bioChemists$ment)
set.seed(1)
n <- 300
s <- data.frame(x1 = round(rnorm(n), 3), x2 = rbinom(n, 1, 0.4), z1 = round(rnorm(n), 3))
s$y <- rbinom(n, 1, plogis(0.3 - 0.8 * s$z1)) * rpois(n, exp(4 + 1.4 * s$x1 + 0.5 * s$x2))
w <- data.frame(x1 = round(runif(n, -1, 1), 3), x2 = rbinom(n, 1, 0.5), z1 = rbinom(n, 1, 0.5))
w$y <- rbinom(n, 1, plogis(0.6 - 0.9 * w$z1)) * rpois(n, exp(0.2 + 0.7 * w$x1 - 0.4 * w$x2))
sets <- list(articles = b, scores = s, rare = w)
rows <- NULL
for (name in names(sets)) {
  d <- sets[[name]][c("y", "x1", "x2", "z1")]
  put(d, name)
  fit <- zeroinfl(y ~ x1 + x2 | z1, data = d, dist = "poisson",
                  control = zeroinfl.control(reltol = 1e-15, maxit = 20000))
  term <- c("beta0", "beta1", "beta2", "gamma0", "gamma1")
  rows <- rbind(rows, long(name, term, coef(fit), sqrt(diag(vcov(fit))), as.numeric(logLik(fit))))
}

# A patient has a row of the model and a row of the reader; `sigma` is that of the log mean.
paired <- function(n, seed, intercept, sigma) {
  set.seed(seed)
  d <- data.frame(id = rep(seq_len(n), each = 2), x1 = rep(0:1, n),
                  z1 = rep(round(rnorm(n), 3), each = 2))
  u <- rep(rnorm(n), each = 2)
  mu <- exp(intercept + 0.2 * d$x1 + sigma * u)
  d$y <- rbinom(2 * n, 1, plogis(0.9 + 0.7 * d$z1)) * rpois(2 * n, mu)
  d[c("id", "y", "x1", "z1")]
}
sets <- list(paired_low = paired(150, 2, 1.2, 0.7), paired_mid = paired(150, 3, 3, 1),
             paired_high = paired(120, 4, 5, 1.5))
for (name in names(sets)) {
  d <- sets[[name]]
  put(d, name)
  fit <- glmmTMB(y ~ x1 + (1 | id), ziformula = ~z1, family = poisson, data = d,
                 control = glmmTMBControl(optCtrl = list(iter.max = 2000, eval.max = 2000)))
  # Newton steps on glmmTMB's own objective: nlminb stops at gradients of 1e-4.
  par <- fit$fit$par
  for (i in 1:5) par <- par - solve(optimHess(par, fit$obj$fn, fit$obj$gr), drop(fit$obj$gr(par)))
  loglik <- -as.numeric(fit$obj$fn(par))
  stopifnot(abs(loglik - as.numeric(logLik(fit))) < 1e-5)
  se <- sqrt(diag(solve(optimHess(par, fit$obj$fn, fit$obj$gr))))
  rows <- rbind(rows, long(name, c("beta0", "beta1", "gamma0", "gamma1", "log_sigma"),
                           par, se, loglik))
}
put(rows, "expected")
writeLines(c(R.version.string, paste("pscl", packageVersion("pscl")),
             paste("glmmTMB", packageVersion("glmmTMB")), paste("TMB", packageVersion("TMB"))),
           file.path(out, "zero_inflated_versions.txt"))
