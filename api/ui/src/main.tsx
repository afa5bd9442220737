import 'uplot/dist/uPlot.min.css';
import './style.css';
import { render, type ComponentType } from 'preact';
import { DemandPage } from './pages/demand.tsx';
import { Failed } from './pages/failed.tsx';
import { FraudPage } from './pages/fraud.tsx';
import { HealthPage } from './pages/health.tsx';
import { LakehousePage } from './pages/lakehouse.tsx';
import { LiveEvents } from './pages/live.tsx';
import { NightsPage } from './pages/nights.tsx';
import { Overview } from './pages/overview.tsx';
import { Products } from './pages/products.tsx';
import { RecommendationsPage } from './pages/recommendations.tsx';
import { TablesPage } from './pages/tables.tsx';
import { WorkflowsPage } from './pages/workflows.tsx';
import { route, type Page } from './router.ts';
import { Shell, Title } from './shell.tsx';
import { useStore } from './store.ts';
import { start } from './stream.ts';
import { Link } from './ui.tsx';

const views: Record<Page['path'], ComponentType> = {
  '/': Overview,
  '/live': LiveEvents,
  '/products': Products,
  '/demand': DemandPage,
  '/recommendations': RecommendationsPage,
  '/fraud': FraudPage,
  '/failed': Failed,
  '/health': HealthPage,
  '/tables': TablesPage,
  '/workflows': WorkflowsPage,
  '/nights': NightsPage,
  '/lakehouse': LakehousePage,
};

const NotFound = () => (
  <>
    <Title title="No such page" />
    <p>
      Nothing is at this address. <Link to="/">Go to the overview.</Link>
    </p>
  </>
);

function App() {
  const path = useStore(route);
  const View = views[path as Page['path']] ?? NotFound;
  return (
    <Shell>
      <View key={path} />
    </Shell>
  );
}

const app = document.getElementById('app');
if (app) render(<App />, app);
start();
