"""Trains small models of other kinds and writes their files and vectors: more.py OUTDIR (lightgbm 4.7.0, xgboost 3.2.0, numpy)."""
import sys, json, gzip, warnings, numpy as np; warnings.filterwarnings("ignore")
import lightgbm as lgb, xgboost as xgb
o=sys.argv[1]; g=np.random.default_rng(11); n=3000
X=g.normal(size=(n,6)).round(2); X[:,4]=g.integers(0,70,n); X[:,5]=np.where(g.random(n)<.5,0,g.poisson(2,n)); X[g.random((n,6))<.04]=np.nan
X[:,4]=np.where(np.isnan(X[:,4]),3,X[:,4])
z=np.nan_to_num(X[:,0])-.7*np.nan_to_num(X[:,1])*(X[:,4]%7==2)+.6*(X[:,5]==0)+.3*np.isin(X[:,4],[1,5,40,66]); y=(g.random(n)<1/(1+np.exp(-z))).astype(int); ym=np.digitize(z,[-.4,.4,1]); yp=np.exp(z/2)
T=np.vstack([X[:60],np.full((1,6),np.nan),np.zeros((1,6)),[[0,0,0,0,200,0]],[[0,0,0,0,-3,1e-40]],[[0,0,0,0,-.5,-1e-36]],[[1,1,1,1,40.9,1e-34]],[[1e300,-1e300,0,0,3e9,0]]])
L=lambda a:[[None if np.isnan(v) else float(v) for v in r] for r in a]
vec={"inputs":L(T),"models":{},"package":{"lightgbm":lgb.__version__,"xgboost":xgb.__version__,"numpy":np.__version__}}
b=dict(verbose=-1,num_leaves=9,learning_rate=.3,seed=1,deterministic=True,num_threads=1,min_data_in_leaf=10)
for nm,p,yy,c in [("zero_missing",dict(objective="binary",zero_as_missing=True),y,[]),("no_missing",dict(objective="binary",use_missing=False,sigmoid=1.7),y,[4]),
  ("ova",dict(objective="multiclassova",num_class=4),ym,[4]),("tweedie",dict(objective="tweedie"),yp,[]),("gamma",dict(objective="gamma"),yp,[4]),("crossent",dict(objective="cross_entropy"),y,[]),
  ("sqrt",dict(objective="regression",reg_sqrt=True),z,[]),("l1",dict(objective="regression_l1"),z,[]),("forest",dict(objective="binary",boosting="rf",bagging_freq=1,bagging_fraction=.6),y,[4]),
  ("dart",dict(objective="binary",boosting="dart"),y,[]),("rank",dict(objective="lambdarank"),y,[]),("stump",dict(objective="regression",min_data_in_leaf=2999),z,[])]:
    d=lgb.Dataset(X,yy,categorical_feature=c,group=[100]*30 if nm=="rank" else None)
    m=lgb.train({**b,**p},d,num_boost_round=6); m.save_model(f"{o}/lgb_more_{nm}.txt")
    vec["models"]["lgb_more_"+nm]={"file":f"lgb_more_{nm}.txt","raw":np.asarray(m.predict(T,raw_score=True)).tolist(),"pred":np.asarray(m.predict(T)).tolist()}
json.dump(vec,open(f"{o}/more_lgb_vectors.json","w"),separators=(",",":"))
TX=T[:60]; TX=np.vstack([TX,np.full((1,6),np.nan),np.zeros((1,6))]); TX[:,4]=np.nan_to_num(TX[:,4])
vx={"inputs":L(TX),"models":{},"package":vec["package"]}
for nm,p,yy,cat in [("poisson",dict(objective="count:poisson"),np.round(yp),0),("cat",dict(objective="binary:logistic",max_cat_to_onehot=2),y,1),("onehot",dict(objective="reg:squarederror",max_cat_to_onehot=100),z,1),("dart",dict(objective="binary:logistic",booster="dart",rate_drop=.3),y,0),("base",dict(objective="reg:logistic",base_score=.2),y,0),("raw",dict(objective="binary:logitraw"),y,0)]:
    ft=["q"]*6
    if cat: ft[4]="c"
    d=xgb.DMatrix(X,label=yy,feature_types=ft,enable_categorical=bool(cat)); m=xgb.train({**p,"max_depth":3,"eta":.4,"seed":1,"nthread":1},d,6); m.save_model(f"{o}/xgb_more_{nm}.json")
    t=xgb.DMatrix(TX,feature_types=ft,enable_categorical=bool(cat))
    vx["models"]["xgb_more_"+nm]={"file":f"xgb_more_{nm}.json","raw":m.predict(t,output_margin=True).astype(float).tolist(),"pred":m.predict(t).astype(float).tolist()}
json.dump(vx,open(f"{o}/more_xgb_vectors.json","w"),separators=(",",":"))
# 100 trees of 31 leaves over 40 features, for speed
X=g.normal(size=(20000,40)).round(3); X[g.random(X.shape)<.05]=np.nan; z=np.nan_to_num(X[:,:6]).sum(1)*.5+np.nan_to_num(X[:,7])*np.nan_to_num(X[:,8]); y=(g.random(20000)<1/(1+np.exp(-z))).astype(int)
m=lgb.train(dict(objective="binary",num_leaves=31,learning_rate=.1,verbose=-1,seed=1,deterministic=True,num_threads=1),lgb.Dataset(X,y),num_boost_round=100); m.save_model(f"{o}/speed.txt")
t=open(f"{o}/speed.txt").read().split("\nfeature_importances:")[0]+"\n"
import re
t=re.sub(r"\n(split_gain|leaf_weight|leaf_count|internal_value|internal_weight|internal_count)=[^\n]*","",t)
gzip.GzipFile(f"{o}/speed.txt.gz","wb",9,mtime=0).write(t.encode())
